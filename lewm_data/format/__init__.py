"""The file, in both directions: HDF5 with plain names, read and written. No torch, no video."""

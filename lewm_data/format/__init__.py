"""The HDF5 file, read and written: names, codecs, rules, chunk index. No torch, no video."""

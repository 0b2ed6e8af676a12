"""HDF5 to batches. No video decoder."""

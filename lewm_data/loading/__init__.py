"""HDF5 to batches. This wing imports no video decoder."""

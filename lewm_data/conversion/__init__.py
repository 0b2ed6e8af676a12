"""LeRobot to HDF5. This wing imports neither torch nor lightning nor lerobot."""

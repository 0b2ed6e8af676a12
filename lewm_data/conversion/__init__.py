"""LeRobot to HDF5: inspect, plan, convert, verify. No torch, no Lightning, no LeRobot."""

"""LeRobot datasets, read natively: layouts v2.0, v2.1 and v3.0, from a folder or the Hub. No torch."""

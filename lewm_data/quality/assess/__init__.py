"""Will a world model learn from a recording? One question a module, each a pure function of small arrays."""

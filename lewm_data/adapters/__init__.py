"""Our format in other libraries, one file for each."""

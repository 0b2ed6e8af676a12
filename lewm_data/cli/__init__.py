"""The command line ``lewm-data``."""

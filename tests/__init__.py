"""The tests, as a package: a dependency installs a package of this name too, which would win otherwise."""

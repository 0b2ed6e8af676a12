"""Benchmarks: claims that anyone can rerun."""

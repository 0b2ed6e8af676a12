"""Frames straight from object storage."""

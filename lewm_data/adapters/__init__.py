"""Readers of lewm_data's format for other libraries, one module each."""

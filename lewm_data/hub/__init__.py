"""Converted files on the Hugging Face Hub: push, pull, and the dataset card."""

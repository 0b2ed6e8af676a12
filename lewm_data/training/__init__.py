"""What trains from the batches: a tiny JEPA to prove the pipeline with, and a report of where the time went."""

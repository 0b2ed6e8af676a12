"""What trains from the batches: LeWM, the diagnostics that tell whether it sees anything, and a report of the time."""

"""From a source to findings and verdicts. Reads, never writes."""

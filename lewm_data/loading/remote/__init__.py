"""Training frames read directly from object storage."""

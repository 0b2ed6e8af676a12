"""What people look at and pass on: the preview page, the same episode in Rerun, and the Hub."""

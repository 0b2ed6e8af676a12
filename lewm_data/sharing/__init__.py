"""What people look at and pass on: preview page, Rerun, Hub, other people's readers."""

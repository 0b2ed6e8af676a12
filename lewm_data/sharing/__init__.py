"""What people look at and pass on: the preview page, an episode in Rerun, the Hub, other people's readers."""

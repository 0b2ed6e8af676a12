"""What people look at: the preview page, the contact sheet, an episode in Rerun."""

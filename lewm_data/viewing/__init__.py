"""Ways to look at a dataset: the preview page, the contact sheet, an episode in Rerun."""

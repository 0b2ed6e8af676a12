"""Everybody who can deliver shuffled windows, behind one face.

All draw the same windows in the same order, given by our ``WindowOrder``: the peers through torch's
``DataLoader(batch_sampler=...)``, so that nobody is lucky with neighbouring frames.
"""

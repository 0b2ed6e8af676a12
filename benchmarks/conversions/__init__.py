"""The measurements of ``conversion.py``: converting beside decoding, a peer, and writing in pieces of every size."""

"""Property tests here take as long as a busy machine lets them, and their cases are small enough for fifty to do."""

from hypothesis import settings

settings.register_profile("loading", deadline=None, max_examples=50)
settings.load_profile("loading")

"""What holds for all tests."""

from hypothesis import settings

# Hypothesis fails an example that takes longer than 200 ms, on a busy machine any.
settings.register_profile("everup", deadline=None)
settings.load_profile("everup")

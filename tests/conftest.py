"""What every test shares: one hypothesis profile without deadlines, for machines of any speed."""

from hypothesis import settings

settings.register_profile("robust_nas", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("robust_nas")

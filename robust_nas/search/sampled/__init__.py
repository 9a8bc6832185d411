"""Sampled searches: one loop asks for architectures, evaluates them one by one, and passes their scores back."""

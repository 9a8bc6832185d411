"""Where tasks run: local worker processes or a Ray cluster. Knows nothing of what a task computes."""

"""Sampled searches: architectures are asked for, evaluated one by one, and their scores told, by one loop."""

"""One-shot searches: a supernet's weights and architecture parameters are trained together, by one loop."""

"""Search strategies: DSARA's two stages, and the loop that runs them."""

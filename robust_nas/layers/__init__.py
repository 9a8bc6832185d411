"""Plain torch modules that operations and networks share."""

"""Smaller and faster networks that stay robust: GDWS, CSTAR-style low rank, and the folding of batch norms."""

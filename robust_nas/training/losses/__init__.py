"""Training losses, one file per method; each is called through its option value in `training/options.py`."""

"""Bridges to other packages, one file each, imported when they are used and not before."""

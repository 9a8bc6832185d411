"""The files of the package, for the tests that read them."""

from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "robust_nas"


@cache
def modules():
    """Return every file of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found

"""The Python files of the repository, for the tests that read them."""

from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_files(folder):
    """Return the paths of a folder's Python files from the repository's root, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


@cache
def modules():
    """Return every file of the package by its dotted name."""
    found = {}
    for file in python_files("robust_nas"):
        path, parts = ROOT / file, Path(file).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found

"""The protocol of table readers.

A new table is a subclass with `recognises` and `read`, in a file of its own, and a line in `TABLES`. `read` yields its
rows to `Table.of`, which finds the isomorphism classes and averages the rows of one class.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from robust_nas.registry import Method
from robust_nas.search.tables.table import Table


class TableReader(Method):
    """Base of all table readers."""

    form: ClassVar[str] = ""  # of the file, in words
    where: ClassVar[str] = ""  # where to get it, in words

    @classmethod
    def recognises(cls, head: str) -> bool:
        """Return whether a file that begins with this text is in the form of the table."""
        raise NotImplementedError(f"{cls.__name__} does not say which files it reads")

    def read(self, path: Path) -> Table:
        """Return the table of a file. Raises `DataError` that names the place of what is wrong."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing")

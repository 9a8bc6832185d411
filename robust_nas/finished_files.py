"""The files of a finished run folder, to be put back where an extension of it fails.

An extension that is killed continues. One that fails, as by an attack that the model cannot be given, would fail again
each time, and what was finished before it would be out of reach.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from robust_nas.errors import RobustNASError, RunError
from robust_nas.files import LOCK, is_temporary, write_atomic


class FinishedFiles:
    """The contents of a finished folder's own files; of its checkpoint, which is large, the length.

    A checkpoint that is not replaced only grows (`record_log.py`); the contents are kept before it is replaced.
    """

    def __init__(self, folder: Path, checkpoint: str, last: tuple[str, ...]) -> None:
        """`last` are the files that are put back after all others, in their order."""
        self.checkpoint, self.last, self.replaced = folder / checkpoint, last, False
        self.length = self._length()
        self.contents = {
            path: path.read_bytes()
            for path in folder.iterdir()
            if path.is_file() and path.name not in (LOCK, checkpoint) and not is_temporary(path)
        }

    def keep_checkpoint(self) -> None:
        """Keep the checkpoint, which is about to be replaced."""
        if not self.replaced and self.checkpoint.is_file():
            self.contents[self.checkpoint] = self.checkpoint.read_bytes()
        self.replaced = True

    def _length(self) -> int:
        return self.checkpoint.stat().st_size if self.checkpoint.is_file() else 0

    def are_better_than(self, error: type[BaseException]) -> bool:
        """Return whether an extension that ended so is given up: it fails again, or has done nothing yet.

        What failed for want of memory or of space on the disk continues where it was.
        """
        again = issubclass(error, RobustNASError) and not issubclass(error, RunError)
        changed = self.replaced or self._length() != self.length
        return issubclass(error, Exception) and (again or not changed)

    def put_back(self) -> None:
        """Write every file that changed as it was; the folder is finished again."""
        names = {name: number for number, name in enumerate(self.last)}
        with contextlib.suppress(
            OSError, RunError
        ):  # then it stays extended, and the failure is what is reported
            if self.checkpoint not in self.contents and self.checkpoint.is_file():
                if self.length:
                    os.truncate(self.checkpoint, self.length)
                else:
                    self.checkpoint.unlink()
            for path in sorted(self.contents, key=lambda path: names.get(path.name, -1)):
                if not path.is_file() or path.read_bytes() != self.contents[path]:
                    write_atomic(path, self.contents[path])

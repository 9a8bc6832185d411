"""Keep the results of an evaluation part by part, so that a killed one continues after the last part.

A part is one batch of one attack, or one finding. A record holds tensors, numbers, strings, lists and dicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Journal:
    """Records by name. `save` gets all of them after every new one."""

    def __init__(
        self, records: dict[str, Any] | None = None, save: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.records = records if records is not None else {}
        self._save = save

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the record of that name; make and save it where there is none."""
        if name not in self.records:
            self.records[name] = make()
            if self._save is not None:
                self._save(self.records)
        record: dict[str, Any] = self.records[name]
        return record

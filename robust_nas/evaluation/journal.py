"""Keep the results of an evaluation part by part, so that a killed one continues after the last part.

A part is one batch of one attack, or one finding. A record holds tensors, numbers, strings, lists and dicts.

An evaluation that was extended takes its images in stages: those up to the number that was asked for first, those up
to the next one, and so on. No batch has images of two stages, so that the records of earlier stages stay as they are;
findings, which are of all images and attacks, are made again after every extension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Journal:
    """Records by name. `save` gets every new one with its name."""

    def __init__(
        self,
        records: dict[str, Any] | None = None,
        save: Callable[[str, dict[str, Any]], None] | None = None,
        earlier: Sequence[int] = (),
    ) -> None:
        """`earlier` are the numbers of images before each extension."""
        self.records = records if records is not None else {}
        self._save = save
        self.extension = f" extension {len(earlier)}" if earlier else ""
        self._ends = tuple(dict.fromkeys(earlier))

    def stages(self, indices: Tensor) -> list[tuple[str, Tensor]]:
        """Return indices `[n]`, ascending, stage by stage, each with its suffix for names; empty stages left out."""
        ends = (0, *self._ends, int(indices[-1]) + 1 if len(indices) else 0)
        found = [
            (f" stage {number}" if number else "", indices[(indices >= low) & (indices < high)])
            for number, (low, high) in enumerate(pairwise(ends))
        ]
        return [(name, part) for name, part in found if len(part)]

    def batches(self, indices: Tensor, size: int) -> list[tuple[str, Tensor, float]]:
        """Return the batches of indices, each with its name and with the fraction that is done after it."""
        done, found = 0, []
        for stage, chosen in self.stages(indices):
            for number, part in enumerate(torch.split(chosen, size)):
                done += len(part)
                found.append((f"batch {number}{stage}", part, done / len(indices)))
        return found

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the record of that name; make and save it where there is none."""
        if name not in self.records:
            self.records[name] = make()
            if self._save is not None:
                self._save(name, self.records[name])
        record: dict[str, Any] = self.records[name]
        return record

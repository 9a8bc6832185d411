"""Early stop on collapse (DARTS+, Liang et al., 2019): a cell of many skip connections ends the search.

    after an epoch in which every normal cell had fewer than n skip connections, one has n or more:
    stop, and take the supernet of the epoch before

DARTS+ has n = 2. A normal cell is one that does not reduce the resolution. Ours: the rule begins with the first epoch
that ends with fewer, because the arg max of random alphas often has n of them; and the epoch before is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from robust_nas.search.one_shot.derivation import normal_kinds
from robust_nas.spaces import CellSpace


class CollapseStop:
    """What a search that may stop early keeps: the end of the last sound epoch, and why it stopped."""

    def __init__(self, limit: int | None, space: CellSpace) -> None:
        self.limit, self.kinds = limit, normal_kinds(space)
        self.sound: dict[str, Any] | None = None  # supernet and last record
        self.stopped: dict[str, Any] | None = None

    def end_epoch(self, supernet: nn.Module, last: dict[str, Any]) -> dict[str, Any]:
        """Return the last record of the search's outcome, after the epoch whose last record is `last`.

        Where the search stops, `stopped` says why and the supernet is that of the epoch before.
        """
        if self.limit is None:
            return last
        many = {kind: last["skips"][kind] for kind in self.kinds if last["skips"][kind] >= self.limit}
        if not many:
            state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
            self.sound = {"supernet": state, "last": last}
        elif self.sound is not None:
            taken: dict[str, Any] = self.sound["last"]
            self.stopped = {
                "reason": " and ".join(
                    f"the {kind} cell has {count} skip connections" for kind, count in many.items()
                ),
                "at": last["epoch"],
                "epoch": taken["epoch"],  # whose end is the outcome, counted as in the records
            }
            supernet.load_state_dict(self.sound["supernet"])
            return taken
        return last

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"sound": self.sound, "stopped": self.stopped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put that back."""
        self.sound, self.stopped = state.get("sound"), state.get("stopped")

"""Count many residual networks at once: params and MACs of every mix of depths and widths of one family.

A stage costs what its first block costs, which depends on the widths of the stage before and of its own, and a multiple
of what each further block costs, which depends on its own width alone. Both are counted once per width and looked up.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_nas.config import check, to_dict
from robust_nas.errors import ArchitectureError, StudyError
from robust_nas.spaces import Cost, ResidualArchitecture, parts
from robust_nas.spaces.residual import MAX_BLOCKS

Budget = Literal["params", "macs"]
_FACTOR = 1 << 32  # packs two widths into one number


class Costs(NamedTuple):
    """Params and MACs of P networks, and those of their last stages; NaN where the network cannot be."""

    params: NDArray[np.float64]
    macs: NDArray[np.float64]
    last_params: NDArray[np.float64]
    last_macs: NDArray[np.float64]


class ResidualCosts:
    """Counts networks that differ from a base in depths and widths alone."""

    def __init__(self, base: ResidualArchitecture, input_shape: tuple[int, int, int], classes: int) -> None:
        self.stages = len(base.depths)
        self._tree = to_dict(base)
        self._base, self._input = base, (input_shape, classes)
        self._stage, self._further = cache(self._count_stage), cache(self._count_further)

    def __call__(self, depths: NDArray[np.int64], widths: NDArray[np.int64]) -> Costs:
        """Return the costs of P networks, from their depths and widths of shape [P, stages]."""
        stem = parts(self._base, *self._input)[0].cost
        total = np.tile(np.array(stem, dtype=np.float64), (len(depths), 1))
        for stage in range(self.stages):
            before = widths[:, stage - 1] if stage else np.zeros_like(widths[:, 0])
            pairs, inverse = np.unique(before * _FACTOR + widths[:, stage], return_inverse=True)
            counted = [self._stage(stage, *divmod(pair, _FACTOR)) for pair in pairs.tolist()]  # [U, 6]
            costs = np.array(counted)[inverse]
            last = costs[:, :2] + (depths[:, stage, None] - 1) * costs[:, 2:4]
            total += last
        total += costs[:, 4:]  # the head behind the last stage
        total[depths.sum(axis=1) > MAX_BLOCKS] = np.nan
        return Costs(total[:, 0], total[:, 1], last[:, 0], last[:, 1])

    def _count_stage(self, stage: int, before: int, width: int) -> tuple[float, ...]:
        """Return params and MACs of the first block, of each further one, and of a head behind it."""
        try:
            first, head = self._counted(stage, before, width, 1)
            return (*first, *self._further(stage, width), *head)
        except ArchitectureError:
            return (np.nan,) * 6

    def _count_further(self, stage: int, width: int) -> tuple[int, int]:
        """Return params and MACs of a block behind the first one; the width of the stage before does not matter."""
        before = self._base.widths[max(stage - 1, 0)]
        (one, _), (two, _) = (self._counted(stage, before, width, depth) for depth in (1, 2))
        return two.params - one.params, two.macs - one.macs

    def _counted(self, stage: int, before: int, width: int, depth: int) -> tuple[Cost, Cost]:
        """Return the costs of one stage, and of the head; the other stages are the base's with one block."""
        widths, depths = list(self._base.widths), [1] * self.stages
        widths[max(stage - 1, 0) : stage + 1] = [before, width] if stage else [width]
        depths[stage] = depth
        tree = {**self._tree, "widths": widths, "depths": depths}
        counted = parts(check(ResidualArchitecture, tree, "", ArchitectureError), *self._input)
        return counted[1 + stage].cost, counted[-1].cost


def _shown(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e15 else f"{value:.4g}"


def out_of_reach(
    source: str, budget: Budget, target: float, tolerance: float, used: NDArray[np.float64], help: str
) -> StudyError:
    """Return the error of a budget that no configuration meets, with the nearest cost."""
    used = used[np.isfinite(used)]
    if not len(used):
        return StudyError(f"{source}: none of the configurations is a possible network")
    nearest = float(used[np.argmin(np.abs(used - target))])
    unit = "MACs" if budget == "macs" else "params"
    return StudyError(
        f"{source}: no configuration within {tolerance:.3g} of {_shown(target)} {unit}; "
        f"the nearest has {_shown(nearest)} ({nearest / target - 1:+.1%}), "
        f"those tried {_shown(used.min())} to {_shown(used.max())}: "
        f"a tolerance of {abs(nearest / target - 1):.2g} would take it, or try {help}"
    )

"""Compare the literature's rules of width and depth, each solved for a budget in integers.

`uniform`: W = k (1, 1, ...), one depth. `huang`: W = k (1, 1, 0.4), one depth. `robustscaling`: D 2 : 2 : 1,
W 2 : 2.5 : 1, and r_D = 0.7. The first two have one free number, and the nearest budget is taken; the third takes the
least objective (`spaces/rules.py`) of all configurations within the tolerance of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robust_nas.config import Count, Fraction01, Number, Positive
from robust_nas.errors import StudyError
from robust_nas.spaces import Architecture, ResidualArchitecture, count, is_staged
from robust_nas.spaces.layout import MAX_FILTERS
from robust_nas.spaces.residual import MAX_BLOCKS
from robust_nas.spaces.rules import PLAIN_CHANNELS, ROBUSTSCALING_DEPTHS, ROBUSTSCALING_WIDTHS
from robust_nas.studies.design.changes import varied
from robust_nas.studies.design.design import Configuration, Design, InputShape
from robust_nas.studies.design.stage_costs import Budget, ResidualCosts, out_of_reach

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Size = tuple[list[int], list[int]]  # depths, widths
MAX_PAIRS = 3_000_000  # candidates that the compound rule looks at below one bound, some seconds


class RatioDesign(Design):
    """One configuration of a rule per target (and per r_D), of the base's block, activation and so on."""

    name: Literal["ratio"] = "ratio"
    rule: Literal["uniform", "huang", "robustscaling"]  # of widths and depths
    budget: Budget  # cost that is kept equal
    targets: tuple[Positive, ...] | None = Field(default=None, min_length=1)  # None: the base's own
    tolerance: Fraction01 = 0.05  # of the target
    free: Literal["width", "depth"] = "width"  # of uniform and huang: what is solved; the other is the base's
    unit: Count | None = (
        None  # widening factors are multiples of unit / 16; None: 16 for robustscaling, else 1
    )
    r_d: tuple[Annotated[Number, Field(gt=0, lt=1)], ...] = Field(
        default=(0.7,), min_length=1
    )  # robustscaling

    @model_validator(mode="after")
    def _no_idle_option(self) -> Self:
        if self.rule == "robustscaling" and self.free != "width":
            raise ValueError(
                f"free: got {self.free!r}; the rule robustscaling solves depths and widths together"
            )
        if self.rule != "robustscaling" and self.r_d != (0.7,):
            raise ValueError(
                f"r_d: got {list(self.r_d)}; it belongs to the rule robustscaling, not {self.rule}"
            )
        if self.free == "depth" and self.unit is not None:
            raise ValueError(f"unit: got {self.unit}; widths are the base's where the depth is free")
        return self

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return the configurations, target by target. Raises `StudyError` where the budget cannot be met."""
        if not is_staged(base):
            raise StudyError(f"ratio: {base.name} is {base.called}; the rules are of residual networks")
        if self.rule != "uniform" and len(base.depths) != 3:
            raise StudyError(
                f"ratio: rule {self.rule} is for three stages; {base.name} has {len(base.depths)}"
            )
        costs = ResidualCosts(base, input_shape, classes)
        own = getattr(count(base, input_shape, classes), self.budget)
        found = []
        for target in self.targets or (own,):
            if self.rule == "robustscaling":
                sizes = [self._compound(costs, target, r_d) for r_d in self.r_d]
            else:
                sizes = [self._solved(base, costs, target)]
            for depths, widths in sizes:
                made = varied(base, {"depths": depths, "widths": widths}, f"ratio: rule {self.rule}")
                found.append(Configuration(made, (), self.arm))
        return found

    def _solved(self, base: ResidualArchitecture, costs: ResidualCosts, target: float) -> Size:
        """Return depths and widths of uniform or huang nearest to the budget, by bisection of the one free number."""
        size, most = self._family(base)

        def used(number: int) -> float:
            depths, widths = size(number)
            cost = self._used(costs, np.array([depths]), np.array([widths]))[0]
            return float(cost) if np.isfinite(cost) else 0.0  # too narrow for the block

        low, high = 1, most
        while low < high:  # the least number that reaches the target
            middle = (low + high) // 2
            low, high = (low, middle) if used(middle) >= target else (middle + 1, high)
        nearest = min((max(low - 1, 1), low), key=lambda number: abs(used(number) - target))
        if abs(used(nearest) / target - 1) > self.tolerance:
            near = np.array([used(number) for number in (max(low - 1, 1), low)])
            raise out_of_reach(
                f"ratio: rule {self.rule}, {self.free} free",
                self.budget,
                target,
                self.tolerance,
                near,
                "a smaller unit" if self.free == "width" else "the width free",
            )
        return size(nearest)

    def _family(self, base: ResidualArchitecture) -> tuple[Callable[[int], Size], int]:
        """Return depths and widths as functions of one number, and the most that it may be."""
        stages, unit = len(base.depths), self.unit or 1

        def widths(steps: int, step: int) -> list[int]:
            multiples = [steps] * stages
            if self.rule == "huang":
                multiples[-1] = max(1, round(0.4 * steps))
            return [step * 2**stage * multiple for stage, multiple in enumerate(multiples)]

        if self.free == "depth":
            return (lambda depth: ([depth] * stages, widths(base.widths[0], 1))), MAX_BLOCKS // stages
        if len(set(base.depths)) > 1:
            raise StudyError(
                f"ratio: rule {self.rule} has one depth; {base.name} has {'-'.join(map(str, base.depths))}"
            )
        most = MAX_FILTERS // (unit * 2 ** (stages - 1))
        if most < 1:
            raise StudyError(
                f"ratio: unit: got {unit}; with {stages} stages at most {MAX_FILTERS >> stages - 1}"
            )
        return (lambda steps: (list(base.depths), widths(steps, unit))), most

    def _used(self, costs: ResidualCosts, depths: Integers, widths: Integers) -> Floats:
        counted = costs(depths, widths)
        return counted.params if self.budget == "params" else counted.macs

    def _compound(self, costs: ResidualCosts, target: float, r_d: float) -> Size:
        """Return depths and widths of the least objective within the tolerance of the budget."""
        self._refuse_beyond(costs, target, r_d)
        nearest: list[float] = []
        bound = 0.02
        while bound < 1:  # every configuration that is not tried lies above the bound
            found = self._least_under(bound, costs, target, r_d, nearest)
            if found is not None:
                return found
            bound *= 1.5
        raise out_of_reach(
            f"ratio: rule robustscaling, r_d {r_d:g}",
            self.budget,
            target,
            self.tolerance,
            np.array(nearest),
            "a smaller unit",
        )

    def _refuse_beyond(self, costs: ResidualCosts, target: float, r_d: float) -> None:
        """Raise `StudyError` for a target far above the largest network of the rule: a search would not end."""
        depths = np.array([[0.4, 0.4, 0.2]]) * MAX_BLOCKS
        factors = MAX_BLOCKS * (1 / r_d - 1) * np.array([ROBUSTSCALING_WIDTHS]) / sum(ROBUSTSCALING_WIDTHS)
        widths = np.rint(factors * PLAIN_CHANNELS * 2 ** np.arange(3)).clip(1, MAX_FILTERS)
        largest = float(self._used(costs, depths.astype(np.int64), widths.astype(np.int64))[0])
        if target > largest:
            raise StudyError(
                f"ratio: rule robustscaling, r_d {r_d:g}: {target:.4g} {self.budget} are beyond the rule; with "
                f"{MAX_BLOCKS} blocks, the most there may be, a network has {largest:.3g}"
            )

    def _least_under(
        self, bound: float, costs: ResidualCosts, target: float, r_d: float, nearest: list[float]
    ) -> Size | None:
        """Return the best configuration with an objective of at most `bound`.

        The nearest cost of every pair of totals is appended to `nearest`.

        Twice the target ends a search: more blocks, or more channels, of about the same shares cost more still.
        """
        unit = self.unit or PLAIN_CHANNELS
        best: tuple[float, float, Size] | None = None
        looked_at = 0
        for total in range(3, MAX_BLOCKS + 1):
            depths, off_depth = _near(total, ROBUSTSCALING_DEPTHS, bound)
            if not len(depths):
                continue
            left, least = bound - float(off_depth.min()), math.inf
            for steps, off_r_d in _width_totals(total, left, r_d, unit / PLAIN_CHANNELS):
                multiples, off_width = _near(steps, ROBUSTSCALING_WIDTHS, left - off_r_d)
                objective = np.round(off_r_d + off_depth[:, None] + off_width, 12)
                first, second = np.nonzero(objective <= bound)
                if not len(first):
                    continue
                looked_at += len(first)
                if looked_at > MAX_PAIRS:
                    raise StudyError(
                        f"ratio: rule robustscaling, r_d {r_d:g}: none of {target:,.0f} {self.budget} is near "
                        f"the rule, and from an objective of {bound / 1.5:.2f} on they are too many to compare: "
                        "use a larger unit, a larger tolerance, or another r_d"
                    )
                widths = multiples[second] * unit * 2 ** np.arange(3)
                used = self._used(costs, depths[first], widths)
                if not np.isfinite(used).any():
                    continue
                error = np.abs(used / target - 1)
                nearest.append(float(used[np.nanargmin(error)]))
                for index in np.flatnonzero(error <= self.tolerance):
                    size = depths[first[index]].tolist(), widths[index].tolist()
                    found = float(objective[first[index], second[index]]), float(error[index]), size
                    best = found if best is None else min(best, found)
                least = min(least, float(np.nanmin(used)))
                if np.nanmin(used) > 2 * target:
                    break
            if 2 * target < least < math.inf:
                break
        return best[2] if best else None


def _width_totals(total: int, bound: float, r_d: float, factor: float) -> Iterator[tuple[int, float]]:
    """Yield sums of widening factors, in steps of `factor`, with r_D within `bound` of its target, and its distance."""
    for steps in range(max(3, int(total * (1 / min(r_d + bound, 0.999) - 1) / factor)), MAX_FILTERS):
        share = total / (total + factor * steps)
        if share < r_d - bound:
            break
        if share <= r_d + bound:
            yield steps, abs(share - r_d)


@lru_cache(maxsize=4096)
def _near(total: int, ratio: tuple[float, float, float], bound: float) -> tuple[Integers, Floats]:
    """Return triples [P, 3] of that sum with shares within `bound` (L1) of the ratio's, and their distances [P]."""
    shares = np.array(ratio) / sum(ratio)
    reach = bound / 2  # of a single share: what one gains the others lose
    candidates = [
        np.arange(max(1, math.ceil(total * (share - reach))), math.floor(total * (share + reach)) + 1)
        for share in shares[:2]
    ]
    first, second = (values.reshape(-1) for values in np.meshgrid(*candidates, indexing="ij"))
    triples = np.stack([first, second, total - first - second], axis=1)
    distance = np.abs(triples / total - shares).sum(axis=1)
    kept = (distance <= bound) & (triples[:, 2] >= 1)
    return triples[kept], distance[kept]

"""Compare configurations of one budget, spread evenly along the factor of interest.

Every integer configuration of the free keys is counted; those within the tolerance of the budget are kept, and of them
the nearest to evenly spaced values of the contrast. Differences below a twentieth of the spacing count as none, and the
nearest budget decides.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robust_nas.config import Count, Fraction01, Positive, to_dict
from robust_nas.errors import ArchitectureError, StudyError
from robust_nas.spaces import Architecture, ResidualArchitecture, count, is_staged, parts
from robust_nas.spaces.rules import PLAIN_CHANNELS, depth_share, wd_ratio
from robust_nas.studies.design.changes import Integers, at, varied
from robust_nas.studies.design.design import Configuration, Design, InputShape
from robust_nas.studies.design.stage_costs import Budget, ResidualCosts, out_of_reach

MAX_POINTS = 500_000  # residual networks that differ in depths and widths, counted by lookup
MAX_BUILT = 20_000  # other networks, counted one by one
_TIE = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)\s*\*\s*)?([a-z_]+(?:\.[a-z0-9_]+)*)\s*")
_STAGE_KEY = re.compile(r"(depths|widths)\.[0-9]+")

Along = Literal["last_stage_params_share", "last_stage_macs_share", "r_d", "wd_ratio", "depth"]
Columns = dict[str, NDArray[np.int64]]  # a key's value in every configuration, [P]


class IsoBudgetDesign(Design):
    """`number` configurations of one budget (all, where there are fewer), in the order of the contrast.

    A free key is a place of an integer in the architecture's tree; a whole list (`depths`, `widths`) means that all
    stages are alike, in `widths` of one widening factor. `ties` let other keys follow, rounded:
    `widths.1: 2 * widths.0`.
    """

    name: Literal["iso"] = "iso"
    budget: Budget  # cost that is kept equal
    target: Positive | None = None  # params, or MACs per image; None: the base's
    tolerance: Fraction01 = 0.05  # of the target
    # keys of the architecture with the integers that they may take
    free: dict[str, Integers] = Field(min_length=1)
    # keys that follow others, such as `widths.1: 2 * widths.0`
    ties: dict[str, str] = Field(default_factory=dict)
    number: Count = 5  # configurations at most
    along: Along = "last_stage_params_share"  # contrast by which they are spread

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return the configurations.

        Raises `StudyError` where the budget cannot be met or there are too many to count.
        """
        columns = self._columns(base)
        if is_staged(base) and all(map(_STAGE_KEY.fullmatch, columns)):
            used, contrast = self._by_stage(base, columns, input_shape, classes)
        else:
            used, contrast = self._one_by_one(base, columns, input_shape, classes)
        possible = np.isfinite(used)
        if possible.any() and not np.isfinite(contrast[possible]).any():
            raise StudyError(f"iso: along {self.along}: {base.name} and its variants have none")
        target = self.target or getattr(count(base, input_shape, classes), self.budget)
        error = np.abs(used / target - 1)
        inside = np.flatnonzero((error <= self.tolerance) & np.isfinite(contrast))
        if not len(inside):
            raise out_of_reach("iso", self.budget, target, self.tolerance, used, "other or finer free values")
        chosen = inside[spread(contrast[inside], error[inside], self.number)]
        return [Configuration(self._built(base, columns, point), (), self.arm) for point in chosen]

    def _columns(self, base: Architecture) -> Columns:
        """Return the free and tied keys with their values in every configuration."""
        points = math.prod(map(len, self.free.values()))
        if points > MAX_POINTS:
            raise StudyError(
                f"iso: the free keys make {points:,} configurations; at most {MAX_POINTS:,} are allowed"
            )
        tree = to_dict(base)
        grids = np.meshgrid(*(np.array(values) for values in self.free.values()), indexing="ij")
        columns: Columns = {}
        for key, values in zip(self.free, grids, strict=True):
            found, flat = at(tree, key, "iso: free"), values.reshape(-1)
            if isinstance(found, list) and found and isinstance(found[0], int):
                growth = 2 if key == "widths" else 1
                columns |= {f"{key}.{index}": flat * growth**index for index in range(len(found))}
            elif type(found) is int:
                columns[key] = flat
            else:
                raise StudyError(f"iso: free: {key!r} is {found!r} in {base.name}; an integer is needed")
        for key, text in self.ties.items():
            tie = _TIE.fullmatch(text)
            if tie is None:
                raise StudyError(f"iso: ties: {key}: got {text!r}; write it as `widths.0` or `2 * widths.0`")
            if key in columns:
                raise StudyError(f"iso: ties: {key!r} is free as well; leave it out of one of the two")
            for place in (key, tie[2]):
                if type(at(tree, place, "iso: ties")) is not int:
                    raise StudyError(f"iso: ties: {place!r} is no integer in {base.name}")
            source = columns.get(tie[2], np.full(points, at(tree, tie[2], "iso: ties")))
            columns[key] = np.maximum(1, np.rint(source * float(tie[1] or 1))).astype(np.int64)
        return columns

    def _by_stage(
        self, base: ResidualArchitecture, columns: Columns, input_shape: InputShape, classes: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return budget and contrast of every configuration, from costs per stage."""
        points = len(next(iter(columns.values())))
        depths, widths = (np.tile(values, (points, 1)) for values in (base.depths, base.widths))
        for key, values in columns.items():
            name, _, stage = key.partition(".")
            (depths if name == "depths" else widths)[:, int(stage)] = values
        costs = ResidualCosts(base, input_shape, classes)(depths, widths)
        factors = widths / (PLAIN_CHANNELS * 2.0 ** np.arange(widths.shape[1]))
        total_depth = depths.sum(axis=1)
        contrast: NDArray[np.float64]
        if self.along == "last_stage_params_share":
            contrast = costs.last_params / costs.params
        elif self.along == "last_stage_macs_share":
            contrast = costs.last_macs / costs.macs
        elif self.along == "r_d":
            contrast = total_depth / (total_depth + factors.sum(axis=1))
        elif self.along == "wd_ratio":
            ratios = widths[:, :-1] / depths[:, :-1]
            contrast = ratios.mean(axis=1) if ratios.shape[1] else np.full(points, np.nan)
        else:
            contrast = total_depth.astype(np.float64)
        return (costs.params if self.budget == "params" else costs.macs), contrast

    def _one_by_one(
        self, base: Architecture, columns: Columns, input_shape: InputShape, classes: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return budget and contrast of every configuration, each built and counted; NaN where it cannot be."""
        points = len(next(iter(columns.values())))
        if points > MAX_BUILT:
            raise StudyError(
                f"iso: the free keys make {points:,} configurations; at most {MAX_BUILT:,} are allowed where more "
                "than depths and widths of a residual network is free"
            )
        measured, problem = [], None
        for point in range(points):
            try:
                network = self._built(base, columns, point)
                cost = count(network, input_shape, classes)
                measured.append((getattr(cost, self.budget), self._contrast(network, input_shape, classes)))
            except ArchitectureError as error:
                measured.append((math.nan, math.nan))
                problem = error
        if problem is not None and all(math.isnan(used) for used, _ in measured):
            raise problem
        used, contrast = np.array(measured, dtype=np.float64).T
        return used, contrast

    def _contrast(self, network: Architecture, input_shape: InputShape, classes: int) -> float:
        if self.along in ("r_d", "wd_ratio"):
            value = depth_share(network) if self.along == "r_d" else wd_ratio(network)
            return math.nan if value is None else value
        if self.along == "depth":
            return float(network.total_depth)
        index = 0 if self.along == "last_stage_params_share" else 1
        costs = [part.cost[index] for part in parts(network, input_shape, classes)]
        return costs[-2] / sum(costs)

    def _built(self, base: Architecture, columns: Columns, point: int) -> Architecture:
        return varied(base, {key: int(values[point]) for key, values in columns.items()}, "iso")


def spread(contrast: NDArray[np.float64], error: NDArray[np.float64], number: int) -> list[int]:
    """Return the indices of `number` values (all, if fewer) nearest to evenly spaced ones, by ascending contrast."""
    if len(contrast) <= number:
        return sorted(range(len(contrast)), key=lambda index: (contrast[index], error[index]))
    grid = np.linspace(contrast.min(), contrast.max(), number) if number > 1 else [np.median(contrast)]
    step = float(np.ptp(contrast)) / max(number - 1, 1) / 20 or 1.0
    chosen: list[int] = []
    for value in grid:
        distance = np.abs(contrast - value)
        order = np.lexsort((distance, error, np.floor(distance / step)))
        chosen.append(next(int(index) for index in order if int(index) not in chosen))
    return sorted(chosen, key=lambda index: (contrast[index], error[index]))

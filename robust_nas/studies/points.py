"""A point of a study: one configuration with its replicates. The input of every analysis.

S: replicates (seeds), N: evaluated images. A replicate is one training from its own seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import StudyError


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """One configuration, what is known of it, and what every one of its replicates did.

    `factors` hold what is known before training: `params`, `macs`, `depth`, `width`, `last_stage_params_share`,
    `last_stage_macs_share`, `r_d`, `wd_ratio`, `initialisation`, the axes of the generator, and the depths and
    widths of the stages as `depths.0`, `depths.1`, ..., `widths.0`, ....
    `arm` may name several arms, joined by `+`. `outcomes` hold `[S, N]` answers per image (`clean`, `robust`,
    `stable`), the same N images in the same order for every point of a study; `measures` one number per seed
    (`lip_adv`, `average_sensitivity`, ...).

    Raises `StudyError` where shapes disagree, a seed comes twice, or a value is not finite.
    """

    name: str
    arm: str = ""
    factors: Mapping[str, float | str] = field(default_factory=dict)
    seeds: tuple[int, ...]
    outcomes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    measures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise StudyError(f"{self.name}: seeds {self.seeds}; needed: at least one, each once")
        for key, outcome in self.outcomes.items():
            if outcome.dtype != np.bool_ or outcome.ndim != 2 or outcome.shape[0] != len(self.seeds):
                raise StudyError(
                    f"{self.name}: outcomes {key!r} are {outcome.dtype} {list(outcome.shape)}; "
                    f"needed: bool [{len(self.seeds)} seeds, images]"
                )
        images = {key: outcome.shape[1] for key, outcome in self.outcomes.items()}
        if len(set(images.values())) > 1 or 0 in images.values():
            raise StudyError(
                f"{self.name}: outcomes of {images} images; needed: one number of images, at least 1"
            )
        for key, values in self.measures.items():
            if len(values) != len(self.seeds) or not np.all(np.isfinite(values)):
                raise StudyError(
                    f"{self.name}: measure {key!r} is {values}; needed: {len(self.seeds)} finite numbers, one per seed"
                )

    @property
    def images(self) -> int:
        """N, or 0 where only measures are known."""
        return next((outcome.shape[1] for outcome in self.outcomes.values()), 0)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Everything that was measured: outcomes, then measures."""
        return (*self.outcomes, *(key for key in self.measures if key not in self.outcomes))

    def values(self, key: str) -> NDArray[np.float64]:
        """`[S]`: the accuracy (a share, 0..1) or measure of each seed.

        Raises `StudyError` where `key` was not measured.
        """
        if key in self.outcomes:
            return np.asarray(self.outcomes[key].mean(axis=1))
        if key in self.measures:
            return np.asarray(self.measures[key], dtype=np.float64)
        raise StudyError(
            f"{self.name}: {key!r} was not measured; measured: {', '.join(self.metrics) or 'nothing'}"
        )

    def number(self, factor: str) -> float:
        """The value of a numeric factor.

        Raises `StudyError` where it is not known or not a number.
        """
        value = self.factors.get(factor)
        if value is None or isinstance(value, str):
            numbers = [key for key, known in self.factors.items() if not isinstance(known, str)]
            raise StudyError(
                f"{self.name}: factor {factor!r} is {value!r}; known numbers: {', '.join(numbers) or 'none'}"
            )
        return float(value)

    def has_number(self, factor: str) -> bool:
        """Whether `number(factor)` has an answer."""
        return factor in self.factors and not isinstance(self.factors[factor], str)


def point_named(points: Iterable[Point], name: str) -> Point:
    """The point of this name.

    Raises `StudyError` where there is none.
    """
    found = {point.name: point for point in points}
    if name not in found:
        raise StudyError(f"no point {name!r} in this study; points: {', '.join(found) or 'none'}")
    return found[name]


def factor_values(points: Iterable[Point], factor: str) -> NDArray[np.float64]:
    """`[P]` float64: a numeric factor of every point."""
    return np.array([point.number(factor) for point in points])

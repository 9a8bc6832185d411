"""The input of every analysis: what the replicates of one configuration answered and measured.

S: replicates (seeds), N: evaluated images. A replicate is one training from its own seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import StudyError


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """One configuration: its factors, its seeds, and the results of every replicate.

    `factors` are known before training: numbers such as `params`, `macs`, `depth`, `depths.0`, or words.
    `arm` names the group of the design that it belongs to; several are joined by `+`.
    `outcomes` hold `[S, N]` answers per image (`clean`, `robust`, `stable`), the same N images in the same order for
    every configuration of a study; `measures` hold one number per seed (`lip_adv`, `average_sensitivity`, ...).

    Raises `StudyError` where shapes disagree, a seed is listed twice, or a value is not finite.
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
        """Return N, or 0 where only measures are known."""
        return next((outcome.shape[1] for outcome in self.outcomes.values()), 0)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the keys of everything that was measured: outcomes, then measures."""
        return (*self.outcomes, *(key for key in self.measures if key not in self.outcomes))

    def values(self, key: str) -> NDArray[np.float64]:
        """Return `[S]`: the accuracy (a share, 0..1) or measure of each seed.

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
        """Return the value of a numeric factor. Raises `StudyError` where it is unknown or not a number."""
        value = self.factors.get(factor)
        if value is None or isinstance(value, str):
            numbers = [key for key, known in self.factors.items() if not isinstance(known, str)]
            raise StudyError(
                f"{self.name}: factor {factor!r} is {value!r}; known numbers: {', '.join(numbers) or 'none'}"
            )
        return float(value)

    def has_number(self, factor: str) -> bool:
        """Return whether `number(factor)` has an answer."""
        return factor in self.factors and not isinstance(self.factors[factor], str)


def factor_values(points: Iterable[Measurements], factor: str) -> NDArray[np.float64]:
    """Return `[P]` float64: a numeric factor of every configuration."""
    return np.array([point.number(factor) for point in points])

"""What one attack of an evaluation did: counts, cost, and every hyper-parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from robust_nas.attacks import Attack

WIDTH = 0.06  # of an interval that a robust accuracy is usually compared by: 3 points either way


@dataclass(frozen=True, kw_only=True)
class Score:
    """A count of right examples."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Return the share that is right, 0..1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval of the accuracy over images drawn like these."""
        from robust_nas.statistics.proportions import wilson  # here, because the room imports scipy

        return wilson(self.correct, self.images)

    def precision(self) -> dict[str, Any]:
        """Return the width of the interval, and the images that would bring it to `WIDTH` at this accuracy."""
        from robust_nas.statistics.proportions import images_needed

        low, high = self.interval
        return {"width": high - low, "target": WIDTH, "images": images_needed(self.accuracy, WIDTH)}

    def to_dict(self) -> dict[str, Any]:
        """Return counts, accuracy and interval as plain values."""
        return {
            "correct": self.correct,
            "images": self.images,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one attack did; `robust_nas.evaluation.protocol` says what is counted."""

    label: str
    attack: Attack
    parameters: dict[str, Any]  # every hyper-parameter, with defaults resolved
    model_form: str  # which form of the model was attacked: folded, or as it is and why
    images: int  # its share
    attacked: int
    broken: int
    share: Score
    common: Score
    seconds: float
    forwards: int
    backwards: int
    broken_indices: tuple[int, ...]  # into the test set
    trace: tuple[dict[str, float], ...] = ()
    runs: int | None = None  # over which `still_right` of the trace is counted
    queries: dict[str, Any] = field(default_factory=dict)  # of an attack that counts them (`query_curves.py`)
    kind: Literal["adaptive", "unaware"] | None = None  # of an attack on a defended model (`defended.py`)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values; the attack as it prints itself, which is enough to run it again."""
        own = (
            Score(correct=self.attacked - self.broken, images=self.attacked).to_dict()
            if self.attacked
            else None
        )
        return {
            "label": self.label,
            "attack": repr(self.attack),
            "parameters": self.parameters,
            "how": self.model_form,
            "images": self.images,
            "attacked": self.attacked,
            "broken": self.broken,
            "own": own,
            "share": self.share.to_dict(),
            "common": self.common.to_dict(),
            "seconds": self.seconds,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "broken_indices": list(self.broken_indices),
            "trace": list(self.trace),
            "runs": self.runs,
            **({"queries": self.queries} if self.queries else {}),
            **({"kind": self.kind} if self.kind else {}),
        }

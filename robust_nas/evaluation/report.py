"""What an evaluation found, as plain values and as the tree that `evaluation.json` holds.

The tree, schema version 1; a score is `{correct, images, accuracy, interval}`, the interval Wilson's (95 %):

    schema_version, threat_model {norm, eps}, seed, device, dtype, batch_size, seconds
    clean         score on all evaluated images, with `wrong_indices` into the test set
    clean_common  score on the common prefix, the images that every attack had in its share
    attacks       a list, in the order they ran: {label, attack, parameters, images, attacked, broken, share,
                  common, seconds, broken_indices}; `robust_nas.evaluation.protocol` tells what each counts
    robust        score on the common prefix under all attacks, with `attacks`, their labels
    flags         doubts of AutoAttack's own checks about the model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robust_nas.config import to_tree
from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.options import EvaluationOptions

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """A count of right examples."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """The share that is right, 0..1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy over images drawn like these."""
        return wilson(self.correct, self.images)

    def to_tree(self) -> dict[str, Any]:
        """Counts, accuracy and interval as plain values."""
        return {
            "correct": self.correct,
            "images": self.images,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one attack did; counts as told at the top of `robust_nas.evaluation.protocol`."""

    label: str
    attack: str  # the option value as it prints itself: enough to run it again
    parameters: dict[str, Any]  # every hyper-parameter, with defaults resolved
    images: int  # its share
    attacked: int
    broken: int
    share: Score
    common: Score
    seconds: float
    broken_indices: tuple[int, ...]  # into the test set

    def to_tree(self) -> dict[str, Any]:
        """The row as plain values."""
        return {
            "label": self.label,
            "attack": self.attack,
            "parameters": self.parameters,
            "images": self.images,
            "attacked": self.attacked,
            "broken": self.broken,
            "share": self.share.to_tree(),
            "common": self.common.to_tree(),
            "seconds": self.seconds,
            "broken_indices": list(self.broken_indices),
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of `robust_nas.evaluation.evaluate`."""

    options: EvaluationOptions
    clean: Score
    clean_common: Score
    rows: tuple[Row, ...]
    robust: Score
    clean_wrong_indices: tuple[int, ...]
    flags: tuple[str, ...]
    seed: int
    device: str
    dtype: str = "float32"

    @property
    def seconds(self) -> float:
        """What all attacks took together."""
        return sum(row.seconds for row in self.rows)

    def to_tree(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`; the schema stands at the top of this file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "threat_model": to_tree(self.options.threat_model),
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "batch_size": self.options.batch_size,
            "seconds": self.seconds,
            "clean": {**self.clean.to_tree(), "wrong_indices": list(self.clean_wrong_indices)},
            "clean_common": self.clean_common.to_tree(),
            "attacks": [row.to_tree() for row in self.rows],
            "robust": {**self.robust.to_tree(), "attacks": [row.label for row in self.rows]},
            "flags": list(self.flags),
        }


def bars(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per bar of a figure or table: clean, what each attack (on its share) left over, and the worst case."""
    rows = [("clean", tree["clean"])]
    rows += [(f"+ {attack['label']}", attack["share"]) for attack in tree["attacks"]]
    return [
        {
            "label": label,
            "accuracy": score["accuracy"],
            "low": score["interval"][0],
            "high": score["interval"][1],
            "images": score["images"],
        }
        for label, score in [*rows, ("worst case", tree["robust"])]
    ]

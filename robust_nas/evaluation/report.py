"""What an evaluation found, as plain values and as the tree that `evaluation.json` holds.

The tree, schema version 2; a score is `{correct, images, accuracy, interval}`, the interval Wilson's (95 %):

    schema_version, threat_model {norm, eps, box}, suite, deployed, seed, device, dtype, batch_size, classes, chance
    seconds, passes      of the attacks, and `findings_seconds`, `findings_passes` of the findings; a pass is one
                         image once forward or once backward through the model
    clean         score on all evaluated images, with `wrong_indices` into the test set; for a random rule also
                  `draws`, the accuracy in each fresh draw, for an abstaining one `rejected`, a share
    clean_common  score on the common prefix, the images that every attack had in its share
    attacks       a list, in the order they ran: {label, attack, parameters, how, images, attacked, broken, own,
                  share, common, seconds, forwards, backwards, broken_indices, trace}; `robust_nas.evaluation.protocol`
                  tells what each counts; trace is a list of {step, mean, low, high, still_right}, or empty
    robust        score on the common prefix under all attacks, with `attacks`, their labels, and `draws`
    findings      a list of {name, status, value, allowed, images, text}; status PASS, WARN, FAIL or NOT RUN
    eps_curve     a list of {eps, accuracy, low, high, images, attack}
    verdict       {status, reasons}; RELIABLE, INCONCLUSIVE or UNRELIABLE
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robust_nas.config import to_dict
from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.options import EvaluationOptions

SCHEMA_VERSION = 2

Status = Literal["PASS", "WARN", "FAIL", "NOT RUN"]


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

    def to_dict(self) -> dict[str, Any]:
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
    how: str  # which form of the model was attacked: folded, or as it is and why
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

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        own = (
            Score(correct=self.attacked - self.broken, images=self.attacked).to_dict()
            if self.attacked
            else None
        )
        return {
            "label": self.label,
            "attack": self.attack,
            "parameters": self.parameters,
            "how": self.how,
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
        }


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked, with its number and what was allowed."""

    name: str
    status: Status
    text: str  # what was seen, in a sentence, and what to do about it where it is not a PASS
    value: float | None = None
    allowed: str = ""
    images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {
            "name": self.name,
            "status": self.status,
            "value": self.value,
            "allowed": self.allowed,
            "images": self.images,
            "text": self.text,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the evidence carries the figure: UNRELIABLE with a FAIL, INCONCLUSIVE with a WARN or a gap."""

    status: Literal["RELIABLE", "INCONCLUSIVE", "UNRELIABLE"]
    reasons: tuple[str, ...]

    @staticmethod
    def of(findings: tuple[Finding, ...]) -> Verdict:
        """The verdict that findings lead to; what was not run for want of passes leaves a gap."""
        if not findings:
            return Verdict(status="INCONCLUSIVE", reasons=("no finding was asked for",))
        for status, given in (("UNRELIABLE", "FAIL"), ("INCONCLUSIVE", "WARN"), ("INCONCLUSIVE", "NOT RUN")):
            reasons = tuple(f"{f.name}: {f.text}" for f in findings if f.status == given)
            if reasons:
                return Verdict(status=status, reasons=reasons)  # type: ignore[arg-type] # a literal of the tuple
        return Verdict(status="RELIABLE", reasons=())


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of `robust_nas.evaluate`."""

    options: EvaluationOptions
    clean: Score
    clean_common: Score
    rows: tuple[Row, ...]
    robust: Score
    clean_wrong_indices: tuple[int, ...]
    findings: tuple[Finding, ...]
    eps_curve: tuple[dict[str, Any], ...]
    examples: tuple[dict[str, Any], ...]  # a few images with what became of them, for the figure
    findings_seconds: float
    findings_passes: int
    clean_draws: tuple[float, ...]
    robust_draws: tuple[float, ...]
    rejected: float | None
    classes: int
    chance: float  # what a constant answer gets right
    seed: int
    device: str
    dtype: str = "float32"

    @property
    def seconds(self) -> float:
        """What all attacks took together."""
        return sum(row.seconds for row in self.rows)

    @property
    def passes(self) -> int:
        """Forward and backward passes of all attacks together, of one image each."""
        return sum(row.forwards + row.backwards for row in self.rows)

    @property
    def verdict(self) -> Verdict:
        """Whether the evidence carries the figure."""
        return Verdict.of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`; the schema stands at the top of this file."""
        verdict = self.verdict
        return {
            "schema_version": SCHEMA_VERSION,
            "threat_model": to_dict(self.options.threat_model),
            "suite": self.options.suite or "own list",
            "deployed": to_dict(self.options.deployed),
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "batch_size": self.options.batch_size,
            "classes": self.classes,
            "chance": self.chance,
            "seconds": self.seconds,
            "passes": self.passes,
            "findings_seconds": self.findings_seconds,
            "findings_passes": self.findings_passes,
            "clean": {
                **self.clean.to_dict(),
                "draws": list(self.clean_draws),
                "rejected": self.rejected,
                "wrong_indices": list(self.clean_wrong_indices),
            },
            "clean_common": self.clean_common.to_dict(),
            "attacks": [row.to_dict() for row in self.rows],
            "robust": {
                **self.robust.to_dict(),
                "draws": list(self.robust_draws),
                "attacks": [row.label for row in self.rows],
            },
            "findings": [finding.to_dict() for finding in self.findings],
            "eps_curve": list(self.eps_curve),
            "verdict": {"status": verdict.status, "reasons": list(verdict.reasons)},
        }


def bars(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per bar of a figure or table: clean, what each attack (on its share) left over, and the worst case."""
    rows: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [("clean", tree["clean"], {})]
    rows += [(f"+ {attack['label']}", attack["share"], attack) for attack in tree["attacks"]]
    return [
        {
            "label": label,
            "accuracy": score["accuracy"],
            "low": score["interval"][0],
            "high": score["interval"][1],
            "images": score["images"],
            "attacked": attack.get("attacked"),
            "broken": attack.get("broken"),
        }
        for label, score, attack in [*rows, ("worst case", tree["robust"], {})]
    ]

"""What an evaluation found, as values and as the tree that `evaluation.json` holds.

The tree, schema version 2; a score is `{correct, images, accuracy, interval}`, the interval Wilson's (95 %):

    schema_version, threat_model {norm, eps, box}, suite, deployed, seed, device, dtype, batch_size, classes, chance
    model_dtypes         of the model's tensors, such as float32; `dtype` is that of the images and the logits
    notes                sentences on what a reader has to know of the inputs
    seconds, passes      of the attacks, and `findings_seconds`, `findings_passes` of the findings; a pass is one
                         image once forward or once backward through the model
    clean         score on all evaluated images, with `wrong_indices` into the test set; for a random rule also
                  `draws`, the accuracy in each fresh draw, for an abstaining one `rejected`, a share
    clean_common  score on the common prefix, the images that every attack had in its share
    attacks       a list, in the order they ran: {label, attack, parameters, how, images, attacked, broken, own,
                  share, common, seconds, forwards, backwards, broken_indices, trace, runs};
                  `robust_nas.evaluation.protocol` says what each counts; trace is a list of {step, mean, low, high,
                  still_right}, or empty: the loss of the first run, the share right in all `runs` (of an earlier
                  version, without `runs`: in the first); of an attack that sees answers alone also `queries`:
                  {total, median, most, curve}, a curve of {queries, distance, success} (`query_curves.py`)
    robust        score on the common prefix under all attacks, with `attacks`, their labels, `draws`, and `precision`:
                  {width, target, images}, the images that would make the interval as narrow as the target
    findings      a list of {name, status, value, allowed, images, text, next_step}; status PASS, WARN, FAIL, NOT RUN
    eps_curve     a list of {eps, accuracy, low, high, images, attack}
    eot_curve     of a random model alone, a list of {model, eot, accuracy, low, high, images, attack}: model is random
                  or, of a Bayesian network and with `eot` null, posterior mean (`checks/eot_curve.py`)
    defence       of a defended model alone: `robust_nas.evaluation.defence_record` says what it holds; a row of its
                  `attacks` has a `kind` too, adaptive (made on the defended model) or unaware (made elsewhere)
    posterior_mean  of a Bayesian network alone: `robust_nas.evaluation.posterior_mean`; rows of `attacks` have a kind
    verdict       {status, reasons, next_step, findings_version}; RELIABLE, INCONCLUSIVE or UNRELIABLE; the step
                  answers the first reason; without a version, the findings are of version 1

The job of `robust-nas evaluate` adds what `robust_nas.workflows.evaluation_record` says: model, dataset, the images
that were tested, warnings, and a sentence for a paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from robust_nas.config import to_dict
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.evaluation.rows import Row, Score
from robust_nas.evaluation.verdict import FINDINGS_VERSION, Finding, Verdict
from robust_nas.figures.bars import evaluation_bars
from robust_nas.records import Shape

SCHEMA_VERSION = 2
# What is read of `evaluation.json` (`robust_nas.records`); a key with ? is not in those of earlier versions.
THREAT: Shape = {"norm": str, "eps": float}
SCORE: Shape = {"accuracy": float, "interval": [float, float], "images": int}
ROW: Shape = {
    "label": str,
    "share": SCORE,
    "seconds": float,
    "attacked?": (int, None),
    "broken?": (int, None),
}
FINDING: Shape = {
    "name": str,
    "status": frozenset({"PASS", "WARN", "FAIL", "NOT RUN"}),
    "value": (float, None),
    "allowed": str,
    "images": int,
    "text": str,
}
VERDICT: Shape = {
    "status": frozenset({"RELIABLE", "INCONCLUSIVE", "UNRELIABLE"}),
    "reasons": [str],
    "next_step?": str,
    "findings_version?": int,
}
SAID: Shape = {  # of images and weights, here and in `compression.json`
    "tested?": ({"text": str, "available?": int}, None),
    "warnings?": [{"text": str, "advice": str}],
}
COMPARED: Shape = {"kind": str, "attack": (str, None), "clean": SCORE, "robust": (SCORE, None)}
DEFENCE: Shape = {
    "name": str,
    "rows": [COMPARED],
    "false_alarms": ({"rejected": int, "images": int, "rate": float, "interval": [float, float]}, None),
}
RECORDED: Shape = {
    "dataset": str,
    "seed": int,
    "suite": str,
    "seconds": float,
    "threat_model": THREAT,
    "clean": SCORE,
    "attacks": [ROW],
    "robust": {**SCORE, "attacks": [str], "precision?": {"width": float, "target": float, "images": int}},
    "findings": [FINDING],
    "verdict": VERDICT,
    "defence?": DEFENCE,
    "posterior_mean?": {"rows": [COMPARED]},
    "notes?": [str],
    "sentence?": str,
    **SAID,
}


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
    dtype: str = "float32"  # of the images as the model gets them, and of the logits as they are judged
    model_dtypes: tuple[str, ...] = ()  # floating-point types of its tensors
    notes: tuple[str, ...] = ()  # what a reader has to know of the inputs
    defence: dict[str, Any] | None = None  # of a defended model (`defence_record.py`)
    posterior_mean: dict[str, Any] | None = None  # of a Bayesian network (`posterior_mean.py`)
    eot_curve: tuple[dict[str, Any], ...] = ()  # of a random model

    def __repr__(self) -> str:
        threat = self.options.threat_model
        return (
            f"<Evaluation: {100 * self.clean.accuracy:.1f} % clean, {100 * self.robust.accuracy:.1f} % robust "
            f"({threat.norm} eps {threat.eps:.4g}, {self.robust.images} images, "
            f"{self.options.suite or 'attacks of its own'}, seed {self.seed}), {self.verdict.status}>"
        )

    def _repr_html_(self) -> str:
        """Return a table for notebooks: what was right before the attacks, after each, and after all of them."""
        bars = evaluation_bars(self.to_dict())
        rows = "".join(
            f"<tr><td>{escape(bar['label'])}</td><td>{100 * bar['accuracy']:.1f} %</td>"
            f"<td>{100 * bar['low']:.1f} .. {100 * bar['high']:.1f}</td><td>{bar['images']}</td></tr>"
            for bar in bars
        )
        header = "<tr><th>after</th><th>still right</th><th>95 % interval</th><th>images</th></tr>"
        reasons = escape("; ".join(self.verdict.reasons))
        said = f"{escape(repr(self))}{f'<br>{reasons}' if reasons else ''}"
        return f"<table><thead>{header}</thead><tbody>{rows}</tbody></table><p>{said}</p>"

    @property
    def seconds(self) -> float:
        """Return the time of all attacks together."""
        return sum(row.seconds for row in self.rows)

    @property
    def passes(self) -> int:
        """Return the forward and backward passes of all attacks together, of one image each."""
        return sum(row.forwards + row.backwards for row in self.rows)

    @property
    def verdict(self) -> Verdict:
        """Return whether the evidence carries the figure."""
        return Verdict.of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `evaluation.json`; the schema is at the top of this file."""
        verdict = self.verdict
        return {
            "schema_version": SCHEMA_VERSION,
            "threat_model": to_dict(self.options.threat_model),
            "suite": self.options.suite or "of its own",
            "deployed": to_dict(self.options.deployed),
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "model_dtypes": list(self.model_dtypes),
            "notes": list(self.notes),
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
                "precision": self.robust.precision(),
                "attacks": [row.label for row in self.rows],
            },
            "findings": [finding.to_dict() for finding in self.findings],
            "eps_curve": list(self.eps_curve),
            **({"eot_curve": list(self.eot_curve)} if self.eot_curve else {}),
            **({} if self.defence is None else {"defence": self.defence}),
            **({} if self.posterior_mean is None else {"posterior_mean": self.posterior_mean}),
            "verdict": {
                "status": verdict.status,
                "reasons": list(verdict.reasons),
                "next_step": verdict.next_step,
                "findings_version": FINDINGS_VERSION,
            },
        }

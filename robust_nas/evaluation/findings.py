"""What is checked beside the attacks, each a PASS, WARN or FAIL with its number.

Two kinds. Those that the attacks have paid for already read their rows and traces (`observed`). The others make
passes of their own (`probes.py`, `active.py`), on the first images of the order, or on the first survivors; with
`findings: budget` they share as many passes as the attacks took, in the order below, the rest of one going to the
next, and one that would get fewer than eight images is NOT RUN, which the verdict counts as a gap.

Sources: Carlini et al. 2019 (the checklist), AutoAttack's own checks (Croce and Hein 2020), the indicators of
attack failure (Pintor et al. 2022), active tests (Zimmermann et al. 2022). Thresholds are our choice unless said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from robust_nas.attacks.engine import seeded_globally
from robust_nas.evaluation import active, curves, probes
from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.probes import Probe, Spent
from robust_nas.evaluation.report import Finding
from robust_nas.evaluation.seeds import seed_of
from robust_nas.evaluation.state import Progressed
from robust_nas.evaluation.traces import late_gain

MOST = 64  # images of a probe
RESOLVED = 1e-4  # eps below which float32 losses cannot tell a step from rounding
LEAST = 8  # below so few a probe says nothing


@dataclass
class Collected:
    """The findings, the curve that one of them drew, and what they cost."""

    findings: list[Finding] = field(default_factory=list)
    eps_curve: list[dict[str, Any]] = field(default_factory=list)
    passes: int = 0
    seconds: float = 0.0


def collect(state: Progressed, journal: Journal, report: Callable[[float], None]) -> Collected:
    """All findings of an evaluation whose attacks are done."""
    collected = Collected(findings=observed(state))
    budget = sum(row.forwards + row.backwards for row in state.rows)
    todo = planned(state)
    for number, probe in enumerate(todo):
        left = budget - collected.passes if state.options.findings == "budget" else math.inf
        affordable = left * probe.share // max(probe.cost, 1)
        count = int(min(len(probe.images), MOST, affordable))
        name = f"finding {probe.name}"
        if not len(probe.images):
            record = _nothing_left(probe)
        elif count < min(LEAST, len(probe.images)):
            record = _not_run(probe, left)
        else:
            record = journal.once(name, lambda: _run(probe, count, state))  # noqa: B023
        collected.findings += [Finding(**finding) for finding in record["findings"]]
        collected.eps_curve += record["curve"]
        collected.passes += record["passes"]
        collected.seconds += record["seconds"]
        report((number + 1) / len(todo))
    return collected


def planned(state: Progressed) -> list[Probe]:
    """The probes in the order in which they are paid for."""
    survivors = state.right.nonzero().squeeze(1)
    right = state.clean_right.nonzero().squeeze(1)
    every = torch.arange(len(state.labels))
    found = [
        probes.deterministic(state, every),
        probes.zero_gradients(state, right),
        probes.fgsm(state, survivors),
        probes.noise(state, survivors),
        active.planted(state, right),
        probes.more_effort(state, survivors),
        curves.eps_curve(state, every),
        probes.transfer(state, survivors),
        probes.square(state, survivors),
        curves.eot_curve(state, right),
    ]
    return [probe for probe in found if probe is not None]


def _run(probe: Probe, count: int, state: Progressed) -> dict[str, Any]:
    began = time.perf_counter()
    spent = Spent()
    with (
        torch.inference_mode(mode=False),
        seeded_globally(seed_of(state.seed, "finding", probe.name), state.device),
    ):
        made, curve = probe.run(probe.images[:count], spent)
    return {
        "findings": [finding.to_dict() for finding in made],
        "curve": curve,
        "passes": spent.passes,
        "seconds": time.perf_counter() - began,
    }


def _free(finding: Finding) -> dict[str, Any]:
    return {"findings": [finding.to_dict()], "curve": [], "passes": 0, "seconds": 0.0}


def _nothing_left(probe: Probe) -> dict[str, Any]:
    return _free(
        Finding(
            name=probe.name, status="PASS", text="no image was left for it to break", allowed=probe.allowed
        )
    )


def _not_run(probe: Probe, left: float) -> dict[str, Any]:
    needed = math.ceil(min(LEAST, len(probe.images)) * probe.cost / probe.share)
    text = (
        f"it would take {needed:,} of the {max(int(left), 0):,} passes left of the attacks' own number; "
        "evaluate more images, use a stronger suite, or set findings: full"
    )
    return _free(Finding(name=probe.name, status="NOT RUN", text=text, allowed=probe.allowed))


def observed(state: Progressed) -> list[Finding]:
    """The findings that cost nothing more."""
    return [
        _logits(state),
        _finite(state),
        _perturbation(state),
        _untouched(state),
        _strong_suite(state),
        _above_chance(state),
        *_plateau(state),
        *_silent(state),
        *_flags(state),
    ]


def _logits(state: Progressed) -> Finding:
    z = state.clean_logits
    probabilities = bool(((z >= 0) & (z <= 1)).all()) and bool(((z.sum(1) - 1).abs() < 1e-3).all())
    off = float((z.sum(1) - 1).abs().max()) if z.isfinite().all() else None
    return Finding(
        name="logits, not probabilities",
        status="FAIL" if probabilities else "PASS",
        value=off,
        allowed="no probabilities",
        images=len(z),
        text="the model ends in a softmax, which starves the gradients of every loss; evaluate its logits"
        if probabilities
        else "the outputs are no probabilities",
    )


def _finite(state: Progressed) -> Finding:
    count = state.not_finite
    return Finding(
        name="finite logits",
        status="FAIL" if count else "PASS",
        value=count,
        allowed="0 images",
        images=len(state.labels),
        text=f"{count} times an image had logits that are NaN or infinite"
        if count
        else "all logits were finite",
    )


def _perturbation(state: Progressed) -> Finding:
    eps = state.options.threat_model.eps
    return Finding(
        name="perturbation re-measured",
        status="PASS",  # `check_perturbation` has raised otherwise
        value=state.largest,
        allowed=f"at most eps {eps:.6g}",
        images=sum(row.attacked for row in state.rows),
        text="every adversarial image lies in the ball and in the box, measured anew in float64",
    )


def _untouched(state: Progressed) -> Finding:
    return Finding(
        name="model untouched",
        status="PASS" if state.untouched else "FAIL",
        value=0 if state.untouched else 1,
        allowed="0 changes",
        text="parameters, buffers, gradients and modes are as they were"
        if state.untouched
        else "the model changed while it was attacked: it learns or keeps statistics in its forward pass",
    )


def _strong_suite(state: Progressed) -> Finding:
    strong = [row.label for row in state.rows if row.label.startswith("apgd")]
    return Finding(
        name="parameter-free attack",
        status="PASS" if strong else "WARN",
        value=len(strong),
        allowed="at least 1 APGD",
        text=f"{', '.join(strong)} chose their own step sizes"
        if strong
        else "every attack had a fixed step size that may not suit this model; use the suite cascade or autoattack",
    )


def _above_chance(state: Progressed) -> Finding:
    n = state.common
    correct = int(state.right[:n].sum())
    low, _ = wilson(correct, n)
    chance = state.chance
    shown = low > chance
    return Finding(
        name="robustness above chance",
        status="PASS" if shown else "WARN",
        value=correct / n,
        allowed=f"interval above {chance:.3g}",
        images=n,
        text="the interval of the robust accuracy lies above chance"
        if shown
        else "there is no robustness to claim at this eps: the interval reaches down to chance",
    )


def _plateau(state: Progressed) -> list[Finding]:
    """The loss of the attack with the most steps, over the examples that survived it."""
    if not state.traces or state.options.threat_model.eps < RESOLVED:
        return []
    record = max(state.traces, key=lambda trace: len(trace.loss))
    kept = state.right[record.indices]
    name, allowed = "loss plateau", "below 0.1 of the gain"
    steps = len(record.loss) - 1
    if not kept.any():
        return [Finding(name=name, status="PASS", allowed=allowed, text="no image survived to look at")]
    late = late_gain(record.loss[:, kept])
    flat = late.isnan()
    value = float(late[~flat].mean()) if not flat.all() else None
    status, text = "PASS", f"{record.attack.label}: the loss had settled by its {steps} steps"
    if float(flat.float().mean()) > 0.1:
        status = "FAIL"
        text = (
            f"{record.attack.label}: on {int(flat.sum())} survivors the loss never rose: no usable gradient"
        )
    elif value is not None and value > 0.1:
        status = "FAIL" if value > 0.5 else "WARN"
        text = f"{record.attack.label}: the loss was still rising at the last of {steps} steps; take more"
    return [
        Finding(name=name, status=status, value=value, allowed=allowed, images=int(kept.sum()), text=text)  # type: ignore[arg-type]
    ]


def _silent(state: Progressed) -> list[Finding]:
    """Examples that some iterate fooled, and that are nevertheless counted as right."""
    if not state.traces:
        return []
    passed_by: set[int] = set()
    for record in state.traces:
        if state.predictor.random and getattr(record.attack, "keep", "") == "best":
            continue  # what it gave back had fooled as many draws; fresh ones decide otherwise
        lost = record.ever_wrong & state.right[record.indices]
        passed_by |= set(record.indices[lost].tolist())
    tested = int(state.clean_right.sum())
    count = len(passed_by)
    return [
        Finding(
            name="silent success",
            status="PASS" if not count else "FAIL" if count > 0.05 * tested else "WARN",
            value=count,
            allowed="0 images",
            images=tested,
            text=f"{count} images were fooled on the way and given back as right; use keep: best"
            if count
            else "no attack passed by an adversarial example that it had",
        )
    ]


def _flags(state: Progressed) -> list[Finding]:
    """AutoAttack's own doubts, and Square's share where it ran as part of the suite."""
    found = [
        Finding(name="AutoAttack's own check", status="WARN", text=flag, allowed="no warning")
        for flag in state.flags
    ]
    white_box = False
    for row in state.rows:
        official = "'autoattack'" in row.attack and row.label == "square"
        if not (official or row.label.startswith("square-")):
            white_box |= not row.label.startswith("noise-")
        elif not white_box:
            text = f"no gradient attack came before {row.label} in the list"
            found.append(
                Finding(
                    name=probes.SQUARE, status="NOT RUN", text=text, allowed="a gradient attack before it"
                )
            )
        else:
            drop = row.broken / row.images
            found.append(
                Finding(
                    name=probes.SQUARE,
                    status="PASS" if drop <= 0.002 else "FAIL" if drop > 0.05 else "WARN",
                    value=row.broken,
                    allowed="at most 0.2 points",
                    images=row.attacked,
                    text=f"{row.label} broke {row.broken} images that the attacks before it had not"
                    + (": the gradients mislead" if drop > 0.002 else ""),
                )
            )
    return found

"""The findings that draw a curve: accuracy against the budget, and against the passes per gradient."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from robust_nas.attacks import PGD
from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.probes import Made, Probe, Spent, attempt, eot_of, judging_passes, limits
from robust_nas.evaluation.report import Finding, Status
from robust_nas.evaluation.state import Progressed

ALIKE = "at most chance where all images can be alike"
GREY = 0.5  # Linf: within it every image can become one and the same grey


def eps_curve(state: Progressed, images: Tensor) -> Probe:
    """Accuracy against the budget: it must fall, reach chance where all images can be alike, and 0 without a bound."""
    threat = state.options.threat_model
    pixels = state.pixels[0].numel()
    linf = threat.norm == "linf"
    grey, unbounded = (GREY, 1.0) if linf else (GREY * pixels**0.5, pixels**0.5)
    small = [threat.eps * factor for factor in (0.5, 1, 2) if threat.eps * factor < grey]
    budgets = [*[(eps, 10) for eps in small if eps > 0], (grey, 20), (unbounded, 20)]
    eot = eot_of(state)
    name = "accuracy falls with eps"

    def run(indices: Tensor, spent: Spent) -> Made:
        clean = int(state.clean_right[indices].sum())
        points = [_point(0.0, clean, len(indices), "none")]
        for eps, steps in budgets:
            # The margin never saturates, so that a confident model is not mistaken for a robust one.
            attack = PGD(norm=threat.norm, eps=eps, steps=steps, loss="margin", eot=eot)
            judged, _ = attempt(state, attack, indices, spent, f"{name} {eps}")
            right = judged.right & state.clean_right[indices]
            points.append(_point(eps, int(right.sum()), len(indices), attack.label))
        found = _curve_findings(points, state.chance)
        # Where every image is the same grey, a rule that abstains may reject it, and be right.
        return [
            finding for finding in found if not (state.predictor.abstains and finding.name == ALIKE)
        ], points

    cost = sum(2 * steps + 2 for _, steps in budgets) * eot + len(budgets) * judging_passes(state)
    return Probe(name=name, images=images, cost=cost, share=0.6, allowed="never rises", run=run)


def _point(eps: float, right: int, images: int, attack: str) -> dict[str, Any]:
    low, high = wilson(right, images)
    return {
        "eps": eps,
        "accuracy": right / images,
        "low": low,
        "high": high,
        "images": images,
        "attack": attack,
    }


def _curve_findings(points: list[dict[str, Any]], chance: float) -> list[Finding]:
    n = points[0]["images"]
    accuracies = [point["accuracy"] for point in points]
    rise = max(after - before for before, after in pairwise(accuracies))
    at_grey, unbounded = accuracies[-2], accuracies[-1]
    return [
        Finding(
            name="accuracy falls with eps",
            status="PASS" if rise <= 0 else "FAIL" if rise > max(2 / n, 0.05) else "WARN",
            value=max(rise, 0.0),
            allowed="never rises",
            images=n,
            text="accuracy never rises with a larger budget"
            if rise <= 0
            else f"accuracy rises by {100 * rise:.1f} points at a larger budget: the attack gets stuck",
        ),
        Finding(
            name=ALIKE,
            status="PASS" if at_grey <= chance else "FAIL" if points[-2]["low"] > chance else "WARN",
            value=at_grey,
            allowed=f"at most {chance:.3g} at eps {points[-2]['eps']:.4g}",
            images=n,
            text=f"{100 * at_grey:.1f} % right at eps {points[-2]['eps']:.4g}"
            + (
                ""
                if at_grey <= chance
                else ", where every image can become the same grey: the gradients mislead"
            ),
        ),
        Finding(
            name="0 % without a bound",
            status="PASS" if unbounded == 0 else "FAIL" if unbounded > max(1 / n, 0.05) else "WARN",
            value=unbounded,
            allowed=f"0 at eps {points[-1]['eps']:.4g}",
            images=n,
            text=f"{100 * unbounded:.1f} % right without a bound"
            + (
                ""
                if unbounded == 0
                else ": an attack that may do anything must succeed; the gradients mislead"
            ),
        ),
    ]


def eot_curve(state: Progressed, images: Tensor) -> Probe | None:
    """A random model under PGD with more and more passes per gradient: the suite's number must be enough."""
    if not state.predictor.random:
        return None
    most = state.options.deployed.eot
    counts = sorted({1, max(1, most // 4), most, 4 * most})
    name, allowed = "EOT sample curve", "no further fall"

    def run(indices: Tensor, spent: Spent) -> Made:
        accuracies = []
        for count in counts:
            attack = PGD(**limits(state), steps=10, eot=count)
            judged, _ = attempt(state, attack, indices, spent, f"{name} {count}")
            accuracies.append(float(judged.right.float().mean()))
        fall = accuracies[counts.index(most)] - accuracies[-1]
        listed = ", ".join(f"{c}: {100 * a:.1f} %" for c, a in zip(counts, accuracies, strict=True))
        status: Status = "PASS" if fall <= 1 / len(indices) else "FAIL" if fall > 0.1 else "WARN"
        return [
            Finding(
                name=name,
                status=status,
                value=fall,
                allowed=allowed,
                images=len(indices),
                text=f"accuracy under PGD-10 by passes per gradient: {listed}"
                + ("" if status == "PASS" else "; raise deployed.eot"),
            )
        ], []

    cost = sum(22 * count for count in counts) + len(counts) * judging_passes(state)
    return Probe(name=name, images=images, cost=cost, share=1.0, allowed=allowed, run=run)

"""Measure what the findings see on honest networks of several kinds, and on masks: where their thresholds come from.

    PYTHONPATH=tests:tests/evaluation .venv/bin/python scripts/simulate_findings.py [SEEDS] [FIGURE.png]

The networks and masks are those of the tests. Every line is a kind: the lowest value over the seeds for an honest one,
the highest for a mask, for which high is bad. Prints a table in Markdown, which docs/explanation/verdict.md holds.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from evaluation_masks import EPS, HONEST, MASKS, Core, honest, patterned  # type: ignore[import-not-found]
from evaluation_networks import digits  # type: ignore[import-not-found]

from robust_nas import ThreatModel
from robust_nas.attacks.losses import margin
from robust_nas.evaluation import Evaluation, evaluate
from robust_nas.evaluation.checks.predicted_change import Agreement, PredictedChange, changes
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.input_gradient import input_gradient
from robust_nas.evaluation.seeds import generator_of
from robust_nas.evaluation.state import EvaluationState
from robust_nas.evaluation.verdict import Finding
from robust_nas.figures import style

IMAGES = 128
COLUMNS = ("close", "at eps", "images followed", "active test", "chosen class")

SEEN: list[list[Agreement]] = []
CHANGES: list[tuple[torch.Tensor, torch.Tensor]] = []


class _Recorded(PredictedChange):
    """The check, which keeps the correlations that it judges."""

    def judge(self, found: list[Agreement], images: int) -> Finding:
        """Keep them and judge."""
        SEEN.append(found)
        return super().judge(found, images)


def values(found: Evaluation) -> dict[str, float]:
    """Return what the thresholds are about; what was not measured is left out."""
    by_name = {finding.name: finding.value for finding in found.findings if finding.value is not None}
    known = {
        "active test": by_name.get("active test"),
        "chosen class": by_name.get("a chosen class without a bound"),
    }
    if SEEN:
        agreements = SEEN[-1]
        each = torch.stack([agreement.close for agreement in agreements])
        known["close"] = min(float(agreement.close.nanmean()) for agreement in agreements)
        known["at eps"] = min(float(agreement.far.nanmean()) for agreement in agreements)
        known["images followed"] = float((each.nanmean(0) >= 0.5).float().mean())
    return {key: value for key, value in known.items() if value is not None}


def evaluations(seeds: int) -> Iterator[tuple[str, bool, Evaluation]]:
    """Yield the kind, whether it is honest, and an evaluation by the cascade, for every kind and seed."""
    checks = (_Recorded(),)
    for kind in HONEST:
        for seed in range(seeds):
            model, eps = honest(kind, seed)
            norms = ("linf", eps), ("l2", 4 * eps)
            for norm, limit in norms:
                SEEN.clear()
                found = evaluate(
                    model, digits().test, ThreatModel(norm=norm, eps=limit), images=IMAGES, checks=checks
                )
                yield f"{kind}, {norm}", True, found
    for mask in (Core, *MASKS):
        for seed in range(seeds):
            SEEN.clear()
            found = evaluate(
                mask(seed).eval(), patterned(seed)[0], ThreatModel(eps=EPS), images=IMAGES, checks=checks
            )
            yield mask.__name__, mask is Core, found


class _Kept(PredictedChange):
    """The check, which keeps the changes of the margin close to the images."""

    def run(self, state: EvaluationState, indices: torch.Tensor, cost: Cost) -> list[Finding]:
        """Keep them and run."""
        x, y = state.batch(indices)
        _, (value,), (gradient,) = input_gradient(state, x, y, (margin,), cost)
        radius = state.threat_model.eps / 8
        generator = generator_of(state.device, 0, "figure")
        CHANGES.append(changes(state, x, y, radius, 16, -gradient, -value, cost, generator))
        return super().run(state, indices, cost)


@style.drawing()
def draw(path: Path) -> None:
    """Draw predicted against real changes of the margin, of an honest network and of a mask."""
    model, eps = honest("convolutional, adversarial", 0)
    cases = [
        ("adversarially trained", model, digits().test, eps),
        ("masked: another model's gradient", MASKS[0](0).eval(), patterned(0)[0], EPS),
    ]
    figure, axes = style.new_figure(1, 2, height=4, width=8)
    for axis, (title, module, images, limit) in zip(axes, cases, strict=True):
        found = evaluate(module, images, ThreatModel(eps=limit), images=64, checks=(_Kept(),))
        real, predicted = CHANGES[-1]
        axis.scatter(predicted.flatten(), real.flatten(), s=5, alpha=0.5, color=style.BLUE, linewidths=0)
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color=style.GREY, linewidth=1)
        robust = 100 * found.robust.accuracy
        axis.set_title(f"{title}\n{robust:.0f} % right under the cascade: {found.verdict.status}")
        axis.set_xlabel("change of the margin that the gradient predicts")
    axes[0].set_ylabel("real change, for steps of eps / 8")
    figure.savefig(path)


def main() -> None:
    """Print the table, or draw the figure."""
    if len(sys.argv) > 2:
        draw(Path(sys.argv[2]))
        return
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows: dict[str, list[tuple[bool, Evaluation, dict[str, float]]]] = {}
    for kind, is_honest, found in evaluations(seeds):
        rows.setdefault(kind, []).append((is_honest, found, values(found)))
        print(kind, found.robust.accuracy, found.verdict, file=sys.stderr, flush=True)
    print(f"| kind ({seeds} seeds) | robust | {' | '.join(COLUMNS)} | verdicts |")
    print("|---|" + "---|" * (len(COLUMNS) + 2))
    for kind, several in rows.items():
        worst = min if several[0][0] else max
        robust = [100 * found.robust.accuracy for _, found, _ in several]
        cells = []
        for column in COLUMNS:
            known = [value[column] for _, _, value in several if column in value]
            cells.append(f"{worst(known):.2f}" if known else "-")
        verdicts = Counter(found.verdict.status for _, found, _ in several)
        said = ", ".join(f"{count} {status}" for status, count in verdicts.items())
        print(f"| {kind} | {min(robust):.0f}-{max(robust):.0f} % | {' | '.join(cells)} | {said} |")


if __name__ == "__main__":
    main()

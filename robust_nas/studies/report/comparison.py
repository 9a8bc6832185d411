"""Compare the training methods of a study: a table for each arm of its methods.

    reference, attack (of `attacked`), suite    what differences are to, and what attacked
    tables    by arm, each {arm, rows}, the reference first
    rows      {name, method, epochs, passes, passes_ratio, seeds, failed, diverged, at_chance, metrics, verdicts,
              seconds_per_epoch, validation, differences}
    warnings  of the config, such as a method's own

`passes` are forward-pass equivalents of an image and epoch, `passes_ratio` those of all epochs to the reference's.
`metrics` and `differences` have `clean`, `attacked` (by the attack of `metrics` alone) and `robust` (the worst case).
Differences are paired by image, over seeds and images, Holm over all methods of a metric; with one seed they have
neither interval nor p. `validation`: robust accuracy of the best and of the last epoch on the validation split, means
over seeds, and their difference: robust overfitting. `seconds_per_epoch`: median over seeds, with validation.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from robust_nas.statistics import summary
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.report.chance import Chance
from robust_nas.studies.report.contrasts import contrast_tree, exploratory
from robust_nas.studies.run.plan import METHOD
from robust_nas.workflows.config import doubts

KEYS = ("clean", "attacked", "robust")
COLUMNS = ("name", METHOD, "epochs", "passes", "passes_ratio", "seeds", "failed", "diverged")

Tree = dict[str, Any]


def compare_methods(rows: Sequence[Tree], config: StudyConfig, reference: str, chance: Chance) -> Tree | None:
    """Return the comparison of an analysis's rows (`analysis.py`); None where methods are not what varies."""
    arms = dict.fromkeys(arm for row in rows if _method(row) for arm in _arms(row))
    if not arms:
        return None
    measured = [row["point"] for row in rows if row["point"] is not None]
    options = config.analysis
    differences: dict[str, Tree] = {}
    for key in KEYS:
        known = [point for point in measured if key in point.outcomes]
        for contrast in exploratory(known, key, options, reference, chance):
            differences.setdefault(contrast.a, {})[key] = _with_seeds(contrast_tree(contrast, chance))
    base = next(row for row in rows if row["planned"]["name"] == reference)
    order = {row["planned"]["factors"].get(METHOD): place for place, row in reversed([*enumerate(rows)])}
    found = {}
    for row in rows:
        name = row["planned"]["name"]
        found[name] = _row(row, base["planned"], differences.get(name, {}), config, chance)
    return {
        "reference": reference,
        "attack": config.metrics.attack.label,
        "suite": config.evaluation.suite,
        "confidence": options.confidence,
        "tables": [
            {
                "arm": arm,
                "rows": [
                    found[row["planned"]["name"]]
                    for row in sorted(rows, key=lambda row: order[row["planned"]["factors"].get(METHOD)])
                    if row is base or _method(row, arm)
                ],
            }
            for arm in arms
        ],
        "warnings": doubts(config),
    }


def _arms(row: Tree) -> list[str]:
    return str(row["planned"]["arm"] or "").split("+")


def _method(row: Tree, arm: str | None = None) -> bool:
    """Return whether a row is one of a training method, and in the arm where one is given."""
    return METHOD in row["planned"]["factors"] and (arm is None or arm in _arms(row))


def _with_seeds(contrast: Tree) -> Tree:
    """Return a contrast, without interval and p where it does not cover new seeds."""
    kept = {key: contrast[key] for key in ("effect", "interval", "p", "p_holm", "equivalent", "undecided")}
    return kept if contrast["includes_seeds"] else {**kept, "interval": None, "p": None, "p_holm": None}


def _row(row: Tree, base: Tree, differences: Tree, config: StudyConfig, chance: Chance) -> Tree:
    planned, point, outcomes, options = row["planned"], row["point"], row["outcomes"], config.analysis
    metrics: Tree = {}
    for key in KEYS if point is not None else ():
        if key in point.outcomes:
            metrics[key] = summary(point, key, options.confidence, draws=options.draws).to_dict()
    seconds = [each["training_seconds"] / len(each["curve"]) for each in outcomes]
    return {
        "name": planned["name"],
        METHOD: planned["factors"].get(METHOD, planned["name"]),
        "epochs": planned["epochs"],
        "passes": planned["passes"],
        "passes_ratio": planned["epochs"] * planned["passes"] / (base["epochs"] * base["passes"]),
        "seeds": row["seeds"],
        "failed": row["failed"],
        "diverged": row["diverged"],
        "at_chance": chance.below.get(planned["name"]),
        "metrics": metrics,
        "verdicts": dict(Counter(each["verdict"] for each in outcomes)),
        "seconds_per_epoch": median(seconds) if seconds else None,
        "validation": _validation([each["curve"] for each in outcomes]),
        "differences": differences,
    }


def _validation(curves: Sequence[Sequence[Mapping[str, Any]]]) -> Tree | None:
    """Return the robust accuracy of the best and of the last validated epoch, and what the last one lost."""
    robust = [[epoch["robust"] for epoch in curve if epoch["robust"] is not None] for curve in curves]
    robust = [values for values in robust if values]
    if not robust:
        return None
    best, last = fmean(map(max, robust)), fmean(values[-1] for values in robust)
    return {"best": best, "last": last, "overfitting": best - last}


def comparison_csv(tree: Tree) -> str:
    """Return a CSV with a row for each method of each table; accuracies and differences are shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "low", "high")
    contrasts = ("difference", "difference_low", "difference_high", "p", "p_holm")
    writer.writerow(
        [
            "table",
            *COLUMNS,
            *(f"{key}_{part}" for key in KEYS for part in (*parts, *contrasts)),
            *("verdicts", "seconds_per_epoch", "best", "last", "overfitting", "at_chance"),
        ]
    )
    for table in tree["tables"]:
        for row in table["rows"]:
            plain = [row[key] for key in COLUMNS]
            plain[COLUMNS.index("seeds")] = len(row["seeds"])
            validation = row["validation"] or {}
            writer.writerow(
                [
                    table["arm"],
                    *plain,
                    *(value for key in KEYS for value in _cells(row, key)),
                    verdicts_text(row),
                    row["seconds_per_epoch"],
                    *(validation.get(key) for key in ("best", "last", "overfitting")),
                    row["at_chance"],
                ]
            )
    return text.getvalue()


def _cells(row: Tree, key: str) -> list[Any]:
    metric, contrast = row["metrics"].get(key) or {}, row["differences"].get(key) or {}
    return [
        metric.get("mean"),
        *(metric.get("interval") or (None, None)),
        contrast.get("effect"),
        *(contrast.get("interval") or (None, None)),
        contrast.get("p"),
        contrast.get("p_holm"),
    ]


def verdicts_text(row: Mapping[str, Any]) -> str:
    """Return the verdicts on the trials of a row: one where they agree, else each with its count."""
    found = row["verdicts"]
    return next(iter(found)) if len(found) == 1 else ", ".join(f"{n} {each}" for each, n in found.items())

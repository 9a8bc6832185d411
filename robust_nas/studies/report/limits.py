"""Say what the results of a study cannot show: its limits, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robust_nas.evaluation.verdict import version_of
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.report.chance import Chance
from robust_nas.studies.run.journal import CHANGED
from robust_nas.studies.run.plan import METHOD

LISTED = 5  # configurations at chance that are named

Tree = dict[str, Any]


def _ran_autoattack(config: StudyConfig) -> bool:
    """Return whether the suite of published tables ran, the authors' own package with its attack without gradients."""
    parts = (part for step in config.evaluation.steps for part in step.attack.parts())
    return any(part.external and part.guided_by == "queries" for part in parts)


def changes(events: Sequence[Tree]) -> list[str]:
    """Return the changes that were not declared before the trials that they are judged by."""
    return [
        f"{', '.join(event['keys'])} changed when {event['done']} trials were done: not declared before them."
        for event in events
        if event["event"] == CHANGED
    ]


def limits_of(
    config: StudyConfig, rows: Sequence[Tree], first: Tree, unfinished: Sequence[Tree], chance: Chance
) -> list[str]:
    """Return the limits of the results, in sentences."""
    threat, data = config.evaluation.threat_model, first["dataset"]
    verdicts = {outcome["verdict"] for row in rows for outcome in row["outcomes"]}
    varied = any(
        key == METHOD or key.startswith("training.") for row in rows for key in row["planned"]["factors"]
    )
    attacks = ", ".join(dict.fromkeys(first["attacks"]))
    limits = [
        f"Robust accuracy is the worst case per image over {attacks} at {threat.norm} eps "
        f"{threat.eps:.4g}, on {first['images']} test images of {data}"
        + (
            "."
            if _ran_autoattack(config)
            else "; AutoAttack was not run, and a stronger attack may find less."
        ),
        (
            "Where a configuration's recipe differs, its name says how; none"
            if varied
            else "One recipe trained all; none"
        )
        + " was tuned for its size. A weight decay or TRADES beta that suits one width need not suit another.",
        f"Networks were trained on {first['train_images']} images; the epoch that counts was chosen on the validation "
        "split, never on the test set.",
        f"Seeds: {', '.join(map(str, config.seeds))}. A contrast over {len(config.seeds)} seeds is only as good as "
        "the variance behind it, which is pooled over the configurations."
        if len(config.seeds) > 1
        else "One seed: no interval holds the spread of trainings, and no rule can be decided.",
    ]
    limits = _of_chance(chance, rows) + limits
    if "UNRELIABLE" in verdicts:
        limits.insert(0, "The evaluation of at least one trial is UNRELIABLE: see its findings.")
    versions = {version_of(outcome) for row in rows for outcome in row["outcomes"]}
    if len(versions) > 1:
        said = " and ".join(map(str, sorted(versions)))
        limits.append(
            f"The verdicts on the trials are of findings of versions {said}: they were not judged alike."
        )
    if config.evaluation.findings == "none":
        limits.append(
            "The findings that check an evaluation's soundness were not run (evaluation.findings is none)."
        )
    if config.size in ("ci", "small"):
        limits.append(f"Size {config.size}: a small study, not comparable to published values.")
    reference = rows[0]
    if reference["point"] is None:
        limits.insert(
            0, f"The reference {reference['planned']['name']} has no outcome: nothing is held against it."
        )
    devices = sorted({outcome["device"] for row in rows for outcome in row["outcomes"]})
    if len(devices) > 1:
        limits.append(f"Trials ran on {' and '.join(devices)}, which round differently.")
    if unfinished:
        limits.append(f"{len(unfinished)} trials have no outcome and are not in any figure; they are listed.")
    return limits


def _of_chance(chance: Chance, rows: Sequence[Tree]) -> list[str]:
    """Return which configurations are not above chance, and where chance was not recorded how it is known."""
    found = [] if chance.note is None else [chance.note]
    if chance.value is not None and chance.below:
        measured = sum(row["point"] is not None for row in rows)
        each = "; ".join(f"{name}: {text}" for name, text in list(chance.below.items())[:LISTED])
        more = f"; and {len(chance.below) - LISTED} more" if len(chance.below) > LISTED else ""
        found.insert(
            0,
            f"{len(chance.below)} of {measured} configurations are not above chance, and no rule, contrast, trend, "
            f"optimum, front or rank correlation that they are part of is decided. {each}{more}.",
        )
    return found

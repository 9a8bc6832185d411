"""An evaluation: attacks, worst case, findings with the verdict, and accuracy over the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.workflows.report.blocks import (
    Block,
    Details,
    Facts,
    Section,
    Table,
    Text,
    duration,
    findings,
    percent,
    score,
    size,
    threat,
)
from robust_nas.workflows.report.part import Part
from robust_nas.workflows.report.sections.evaluation_so_far import evaluation_so_far

FILE = "evaluation.json"


def evaluation(part: Part) -> Section | None:
    """Return the section of `evaluation.json`, or of an evaluation that is not finished."""
    tree = part.record(FILE)
    if tree is None:
        return evaluation_so_far(part)
    clean, robust, verdict = tree["clean"], tree["robust"], tree.get("verdict") or {}
    status = f"; the evaluation is {verdict['status']}" if verdict.get("status") else ""
    answer = (
        f"Under attack ({threat(tree['threat_model'])}) {score(robust)} of {robust['images']} test images of "
        f"{tree.get('dataset', 'an unnamed dataset')} stay right, without attack {score(clean)}{status}."
    )
    blocks: list[Block] = [Text(f"{verdict['status']}: {why}", "warn") for why in verdict.get("reasons", ())]
    if verdict.get("next_step"):
        blocks.append(Text(f"Next: {verdict['next_step']}"))
    blocks += [
        Text("; ".join(filter(None, (one["text"], one.get("advice")))), "warn")
        for one in tree.get("warnings") or ()
    ]
    blocks += [_facts(tree), _attacks(tree)]
    if tree.get("findings"):
        blocks += findings(tree["findings"])
    if tree.get("eps_curve"):
        rows = [
            [f"{one['eps']:.4g}", percent(one["accuracy"]), str(one["images"]), str(one.get("attack", ""))]
            for one in tree["eps_curve"]
        ]
        blocks.append(
            Table(("eps", "accuracy", "images", "attack"), rows, frozenset({3}), title="Accuracy by budget")
        )
    if tree.get("defence"):
        blocks.append(_defence(tree["defence"]))
    options = [[one["label"], str(one.get("attack", ""))] for one in tree["attacks"]]
    blocks.append(
        Details("Every option of every attack", [Table(("attack", "options"), options, frozenset({0, 1}))])
    )
    if tree.get("sentence"):
        blocks.append(Details("A sentence for a paper", [Text(str(tree["sentence"]))]))
    return Section("Evaluation", answer, blocks, _limits(tree))


def _facts(tree: Mapping[str, Any]) -> Facts:
    tested = tree.get("tested") or {}
    rows = [
        ("model", str(tree.get("model", ""))),
        ("images", str(tested.get("text") or f"{tree['clean']['images']} test images")),
        ("suite", str(tree.get("suite") or "of its own")),
        ("attacks", duration(tree.get("seconds"))),
        ("passes of an image", size(tree.get("passes"))),
        ("findings", duration(tree.get("findings_seconds"))),
        ("numbers", f"{tree.get('dtype', '')} on {tree.get('device', '')}"),
        ("seed", str(tree.get("seed", ""))),
    ]
    return Facts(rows)


def _attacks(tree: Mapping[str, Any]) -> Table:
    rows = [
        [
            str(one["label"]),
            score(one.get("share")),
            f"{one['broken']} of {one['attacked']}",
            str(one["images"]),
            duration(one.get("seconds")),
            size(one.get("forwards")),
            size(one.get("backwards")),
        ]
        for one in tree["attacks"]
    ]
    robust = tree["robust"]
    worst = ["worst case per image", score(robust), "", str(robust["images"]), "", "", ""]
    header = ("attack", "still right", "broken", "images", "time", "forwards", "backwards")
    return Table(
        header,
        [*rows, worst],
        marked=frozenset({len(rows)}),
        title="Attacks",
        note="In brackets: 95 % intervals over images. An attack is given the images that those before it left right.",
    )


def _defence(tree: Mapping[str, Any]) -> Table:
    """Return the model next to its twins: undefended, attacked without and with knowledge of the defence, certified."""
    rows = [
        [
            str(row["kind"]),
            str(row["attack"] or ""),
            percent(row["clean"]["accuracy"]),
            score(row["robust"]),
            str(row["clean"]["images"]),
        ]
        for row in tree["rows"]
    ]
    alarms = tree.get("false_alarms")
    note = f"False alarms: {alarms['rejected']} of {alarms['images']} clean test images." if alarms else ""
    header = ("kind", "attack, alone", "clean", "under it", "images")
    return Table(header, rows, frozenset({0, 1}), title=f"Defence {tree.get('name', '')}", note=note)


def _limits(tree: Mapping[str, Any]) -> list[str]:
    found = [
        f"Robust accuracy is that under these attacks, on {tree['robust']['images']} images: a stronger attack may "
        "find less, and the interval covers other images, not other trainings."
    ]
    if not tree.get("findings"):
        found.append("No finding looked at whether the attacks worked.")
    return found

"""A defence around a model: its options and values, and the answers on validation images without and with it."""

from __future__ import annotations

from robust_nas.workflows.report.blocks import (
    Block,
    Facts,
    Section,
    Table,
    Text,
    flat,
    number,
    percent,
    score,
)
from robust_nas.workflows.report.part import Part


def defence(part: Part) -> Section | None:
    """Return the section of `defence.json`."""
    tree = part.record("defence.json")
    if tree is None:
        return None
    before, after, valid = tree["undefended"], tree["defended"], tree["validation"]
    answer = (
        f"With {tree['label']} {percent(after['accuracy']['share'])} of the validation images are answered right, "
        f"without it {percent(before['accuracy']['share'])}"
    )
    if after["false_alarms"]:
        answer += f"; it rejects {percent(after['false_alarms']['share'])} of them"
    blocks: list[Block] = [
        Text(f"{one['text']}; {one['advice']}", "warn") for one in tree.get("warnings") or ()
    ]
    rows = [
        [
            label,
            score(one["accuracy"]),
            score(one["false_alarms"]) if one["false_alarms"] else "does not reject",
        ]
        for label, one in (("without", before), ("with", after))
    ]
    blocks += [
        Table(("defence", "right", "rejected"), rows, title="Answers on unattacked images"),
        Facts(
            [
                *((key, value) for key, value in flat(tree["method"])),
                *((f"calibrated {key}", number(value)) for key, value in tree["values"].items()),
                (
                    "images",
                    f"{valid['images']} of the validation split of {valid['dataset']}, seed {valid['seed']}",
                ),
                ("certifies", "yes" if tree["certifies"] else "no"),
                ("export", tree["not_exported"] or "as layers"),
                ("model", tree["model"]),
            ]
        ),
    ]
    limits = ["Nothing was attacked here: what a defence is worth, robust-nas evaluate FOLDER/model says."]
    return Section("Defence", f"{answer}.", blocks, limits)

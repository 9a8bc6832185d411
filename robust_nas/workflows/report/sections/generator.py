"""A trained attack next to targeted PGD: success towards each class, time and cost."""

from __future__ import annotations

from robust_nas.workflows.report.blocks import Facts, Section, Table, duration, percent, size, threat
from robust_nas.workflows.report.part import Part


def generator(part: Part) -> Section | None:
    """Return the section of a trained attack's `report.json`."""
    tree = part.record("report.json")
    if tree is None or "pgd_label" not in tree:
        return None
    every, pgd = tree["all"], tree["pgd_label"]
    answer = (
        f"{tree['method']} leads {percent(every['attack_success'])} of the images to the class it aims at, {pgd} "
        f"{percent(every['pgd_success'])}, and takes 1/{tree['times_faster']:.3g} of its time."
    )
    rows = [
        [str(row["class"]), str(row["pairs"]), percent(row["attack_success"]), percent(row["pgd_success"])]
        for row in [*tree["classes"], every]
    ]
    table = Table(
        ("class", "pairs", tree["method"], pgd),
        rows,
        marked=frozenset({len(rows) - 1}),
        title="Success by class",
    )
    milliseconds, macs = tree["ms_per_image"], tree["macs"]
    facts = Facts(
        [
            ("model", tree["model"]),
            ("threat model", threat(tree["threat_model"])),
            ("test images", f"{tree['images']} of {tree['dataset']}"),
            ("milliseconds of an image", f"{milliseconds['attack']:.3g}, {pgd} {milliseconds['pgd']:.3g}"),
            ("MACs of an image", f"{size(macs['attack'])}, {pgd} {size(macs['pgd'])}"),
            ("epoch that is kept", str(tree["epoch"] + 1)),
            ("training", duration(tree["seconds"])),
        ]
    )
    limits = [
        "The success of one trained attack is no robust accuracy: a model that resists it may fall to others."
    ]
    return Section("Trained attack", answer, [facts, table], limits)

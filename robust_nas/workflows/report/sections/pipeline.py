"""A run of all jobs: what it ends with, and what each step cost."""

from __future__ import annotations

from robust_nas.workflows.report.blocks import Block, Facts, Section, Table, duration, percent, size
from robust_nas.workflows.report.part import Part

NETWORKS = ("network", "", "params", "MACs", "file", "clean", "worst case", "95 % interval", "verdict")


def pipeline(part: Part) -> Section | None:
    """Return the section of `summary.json`."""
    tree = part.record("summary.json")
    if tree is None:
        return None
    answer = (
        f"The network found for {tree['dataset']} keeps {percent(tree.get('robust'))} of the test images right under "
        f"attack ({tree['norm']} eps {tree['eps']:.4g}) and {percent(tree.get('clean'))} without; the evaluation is "
        f"{tree.get('verdict') or 'not judged'}, the search {tree.get('search_verdict', 'not judged')}."
    )
    steps = tree.get("seconds_per_step") or {}
    rows = [[name, duration(seconds)] for name, seconds in steps.items()]
    networks = [
        [
            one["label"],
            one["network"],
            f"{one['params']:,}",
            f"{one['macs'] / 1e6:.2f} M",
            f"{one['bytes'] / 1000:.0f} kB",
            percent(one["clean"]),
            percent(one["robust"]),
            " .. ".join(percent(end) for end in one["robust_interval"]),
            one["verdict"],
        ]
        for one in tree.get("networks", ())  # not of an earlier version
    ]
    blocks: list[Block] = [
        Facts(
            [
                ("attacks", str(tree.get("attack", ""))),
                ("test images", f"{tree.get('images')} attacked, {tree.get('images_clean')} clean"),
                ("parameters", size(tree["params"])),
                ("compressed", str(tree.get("compressed") or "no")),
            ]
        ),
        *([Table(NETWORKS, networks, frozenset({0, 1, 8}), title="The networks")] if networks else []),
        Table(
            ("step", "time"),
            rows,
            title="What each step cost",
            note=f"All steps: {duration(tree['seconds'])}.",
        ),
    ]
    limits = [
        "One search and one training: no interval here covers other seeds (robust-nas compare and study do)."
    ]
    return Section("The run", answer, blocks, limits)

"""A set of attacked images: how many were turned wrong, how far they were moved, and what the attack cost."""

from __future__ import annotations

from typing import Any

from robust_nas.workflows.report.blocks import (
    MISSING,
    Block,
    Details,
    Facts,
    Section,
    Table,
    Text,
    duration,
    flat,
    number,
    percent,
    score,
)
from robust_nas.workflows.report.part import ATTACK_SET, Part


def attack_set(part: Part) -> Section | None:
    """Return the section of `attack.json`."""
    tree = part.record(ATTACK_SET)
    if tree is None:
        return None
    model, data, success = tree["threat_model"], tree["data"], tree["success"]
    eps = "no bound" if model["eps"] is None else f"eps {model['eps']:.4g}"
    turned = (
        f"turns {success['count']} of {success['of']} right images wrong" if success else "met no right image"
    )
    answer = (
        f"{tree['label']} ({model['norm']} {eps}) {turned}: {percent(tree['robust']['share'])} of {tree['images']} "
        f"{data['part']} images of {data['name']} stay right, {percent(tree['clean']['share'])} without attack."
    )
    accuracies = [
        ["right without attack", _count(tree["clean"]), score(tree["clean"])],
        ["right under attack", _count(tree["robust"]), score(tree["robust"])],
        ["turned wrong, of the right ones", _count(success), score(success)],
    ]
    lengths = [
        [norm, number(each["median"]), number(each["largest"])]
        for norm, each in tree["distances"].items()
        if each is not None
    ]
    blocks: list[Block] = [Text(str(flag), "warn") for flag in tree.get("flags") or ()]
    note = "In brackets: 95 % intervals over images."
    blocks.append(Table(("images", "number", "share"), accuracies, title="Success", note=note))
    if lengths:
        note = "Pixels lie in 0..1."
        header = ("norm", "median", "largest")
        blocks.append(Table(header, lengths, title="Perturbations of the images turned wrong", note=note))
    options = [list(row) for row in flat(tree["attack"])]
    blocks += [
        _cost(tree),
        Details("Every option of the attack", [Table(("", ""), options, frozenset({0, 1}))]),
    ]
    limits = ["One attack, every image once: the worst case over several attacks, robust-nas evaluate says."]
    return Section("Attacked images", answer, blocks, limits)


def _count(share: Any) -> str:
    return f"{share['count']} of {share['of']}" if share else MISSING


def _cost(tree: dict[str, Any]) -> Facts:
    passes, queries = tree["passes"], tree.get("queries")
    asked = f"{queries['mean']:.4g} on average, {queries['most']} at most" if queries else ""
    return Facts(
        [
            ("model", str(tree["model"])),
            ("passes of an image", f"{passes['forward']:.4g} forward, {passes['backward']:.4g} backward"),
            ("queries of an image", asked),
            (
                "attack",
                f"{duration(tree['seconds'])}, {1000 * tree['seconds'] / tree['images']:.3g} ms an image",
            ),
            ("seed", str(tree["seed"])),
        ]
    )

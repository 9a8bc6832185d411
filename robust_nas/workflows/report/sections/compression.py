"""A compression: the trade-off between size, speed and accuracies, and the network that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.workflows.report.blocks import (
    MISSING,
    Block,
    Section,
    Table,
    Text,
    percent,
    score,
    size,
    threat,
    times,
)
from robust_nas.workflows.report.part import Part


def compression(part: Part) -> Section | None:
    """Return the section of `compression.json`."""
    tree = part.record("compression.json")
    if tree is None:
        return None
    rows = tree["networks"]
    first = rows[0]
    place = next(number for number, row in enumerate(rows) if row["label"] == tree["chosen"])
    blocks: list[Block] = [
        Text(f"{one['text']}; {one['advice']}", "warn") for one in tree.get("warnings") or ()
    ]
    blocks += [_sizes(rows, place), _accuracies(rows, place), _milliseconds(rows, place)]
    blocks += [Text(f"Not measured: {one}", "soft") for one in tree.get("not_measured") or ()]
    limits = [
        f"The network is chosen on {first['validation']['images']} validation images ({threat(tree['threat_model'])}); "
        "milliseconds are those of this machine, one thread."
    ]
    return Section("Compression", _answer(tree, first, rows[place]), blocks, limits)


def _answer(tree: Mapping[str, Any], first: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    key = "test" if first.get("test") and chosen.get("test") else "validation"
    before, after = (_share(row[key], "robust") for row in (first, chosen))
    speeds = _speeds(first, chosen)
    fastest = f", {', '.join(f'{text} in {name}' for name, text in speeds.items())}" if speeds else ""
    within = "within" if tree["within_loss"] else "more than"
    return (
        f"{chosen['label']} is chosen: {_ratio(first['macs'], chosen['macs'])} fewer MACs, "
        f"{_ratio(first['params'], chosen['params'])} fewer parameters{fastest} (one image); robust accuracy on {key} "
        f"images {percent(before)} before, {percent(after)} after; the loss on validation images is {within} the "
        f"{100 * tree['max_loss']:g} points allowed."
    )


def _sizes(rows: list[dict[str, Any]], chosen: int) -> Table:
    first = rows[0]
    said = [
        [
            row["label"],
            row["method"],
            "baseline of " + row["baseline_of"] if row["baseline_of"] else (row["made_from"] or ""),
            size(row["params"]),
            _ratio(first["params"], row["params"]),
            size(row["macs"]),
            _ratio(first["macs"], row["macs"]),
            size(row["bytes"]),
        ]
        for row in rows
    ]
    header = ("network", "method", "made from", "parameters", "fewer", "MACs", "fewer", "bytes")
    return Table(header, said, frozenset({0, 1, 2}), frozenset({chosen}), title="Size")


def _accuracies(rows: list[dict[str, Any]], chosen: int) -> Table:
    said = []
    for row in rows:
        test, valid = row.get("test"), row["validation"]
        said.append(
            [
                row["label"],
                percent(valid["clean"]),
                percent(valid["robust"]),
                score(test["clean"]) if test else MISSING,
                score(test["robust"]) if test else MISSING,
                test["verdict"]["status"] if test else "not evaluated",
            ]
        )
    header = ("network", "validation clean", "validation robust", "test clean", "test robust", "verdict")
    note = "In brackets: 95 % intervals over images."
    return Table(header, said, frozenset({0, 5}), frozenset({chosen}), title="Accuracies", note=note)


def _milliseconds(rows: list[dict[str, Any]], chosen: int) -> Table:
    names = [(engine, batch) for engine, batches in rows[0]["latency_ms"].items() for batch in batches]
    said = []
    for row in rows:
        cells = [row["label"]]
        for engine, batch in names:
            before, after = (_median(one, engine, batch) for one in (rows[0], row))
            own = MISSING if after is None else f"{after:.3g} ms"
            cells.append(own if row is rows[0] or after is None else f"{own}, {times(before, after)}")
        said.append(cells)
    header = ("network", *(f"{engine}, batch of {batch}" for engine, batch in names))
    return Table(
        header,
        said,
        marked=frozenset({chosen}),
        title="Speed",
        note="Median of a batch, against the original.",
    )


def _speeds(first: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Return how much faster each engine is with one image, where it was measured."""
    found = {
        engine: times(_median(first, engine, "1"), _median(row, engine, "1")) for engine in row["latency_ms"]
    }
    return {engine: text for engine, text in found.items() if text != MISSING}


def _median(row: Mapping[str, Any], engine: str, batch: str) -> float | None:
    value = ((row["latency_ms"].get(engine) or {}).get(batch) or {}).get("median_ms")
    return None if value is None else float(value)


def _share(row: Mapping[str, Any], key: str) -> Any:
    value = row[key]
    return value["accuracy"] if isinstance(value, dict) else value


def _ratio(before: float, after: float) -> str:
    return f"{before / after:.2f} x" if after else MISSING

"""A search: its verdict with reasons, the chosen edges with their noise, alphas and entropy over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robust_nas.workflows.report.blocks import (
    Block,
    Charts,
    Details,
    Facts,
    Section,
    Table,
    Text,
    duration,
    findings,
    number,
    percent,
    size,
)
from robust_nas.workflows.report.charts import Axis, Line, line_chart
from robust_nas.workflows.report.part import Part

MARGIN = (
    "Margin: how far the operation of an edge leads over the next one, in units of the noise of the weights. An edge "
    "is decided where the margin is more than noise gives."
)
WEIGHTS = "edge_weights"  # of a line of the metrics: kind to a row an edge, with a weight an operation


def search(part: Part) -> Section | None:
    """Return the section of a search, finished or not."""
    verdict, options = part.record("verdict.json") or {}, _options(part)
    made = part.result
    if options is None or not (verdict or made or part.metrics or part.started):
        return None
    answer = ""
    if "macs" in made:
        judged = f"; the search is {verdict['status']}" if verdict.get("status") else ""
        answer = (
            f"{options} found an architecture of {size(made['params'])} parameters and {size(made['macs'])} "
            f"MACs{judged}."
        )
    elif not made:
        answer = _so_far(part)
    blocks: list[Block] = [Text(str(one), "warn") for one in verdict.get("reasons") or ()]
    if verdict.get("next_step"):
        blocks.append(Text(f"Next: {verdict['next_step']}"))
    blocks += [Text(str(one), "warn") for one in made.get("warnings") or ()]
    blocks.append(
        Facts(
            [
                ("strategy", options),
                ("images", str(made.get("images", ""))),
                ("records", str(len(part.metrics))),
                (
                    "skip connections",
                    ", ".join(f"{n} in {kind}" for kind, n in (made.get("skips") or {}).items()),
                ),
                ("time", duration(made.get("seconds"))),
                ("seed", str(made.get("seed", part.config.get("seed", "")))),
            ]
        )
    )
    if verdict.get("findings"):
        blocks += findings(verdict["findings"])
    if verdict.get("edges"):
        kinds = dict.fromkeys(str(one["kind"]) for one in verdict["edges"])
        blocks += [_edges(kind, [one for one in verdict["edges"] if one["kind"] == kind]) for kind in kinds]
        blocks.append(Text(MARGIN, "soft"))
    if made.get("per_seed"):
        blocks.append(_seeds(made))
    if made.get("fitness"):
        blocks.append(_fitness(made["fitness"]))
    blocks += _over_time(part)
    limits = [
        "A search chooses on a part of the training images; what its network is worth, an evaluation says."
    ]
    if verdict:
        limits.append(
            "The verdict on a search is about the evidence, not about the network: docs/explanation/search-verdict.md."
        )
    return Section("Search", answer, blocks, limits)


def _so_far(part: Part) -> str:
    """Return the best candidate of a sampled search that is not finished, by its first objective; or nothing."""
    own = part.config.get("search")
    objectives = own.get("objectives") if isinstance(own, dict) else None
    if not isinstance(objectives, dict) or not objectives:
        return ""
    name, way = next(iter(objectives.items()))
    scored = [row for row in part.metrics if isinstance(row.get(name), int | float)]
    if not scored:
        return ""
    best = (min if way == "min" else max)(scored, key=lambda row: float(row[name]))
    accuracies = ", ".join(f"{key} {percent(best[key])}" for key in ("clean", "robust") if key in best)
    return (
        f"So far {best.get('name')} is the best of {len(scored)} candidates: {name} {number(best[name])}"
        f"{f' ({accuracies})' if accuracies else ''}, {size(best.get('macs'))} MACs."
    )


def _options(part: Part) -> str | None:
    """Return the name of the strategy, or None where the folder is of no search."""
    own = part.config.get("search")
    if not isinstance(own, dict) or "steps" in part.config:
        return None
    own = own.get("search", own)
    return str(own.get("name", "search")) if isinstance(own, dict) else "search"


def _edges(kind: str, edges: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            str(one.get("node", "")),
            str(one.get("source", "")),
            str(one.get("operation", "")),
            number(one.get("weight")),
            number(one.get("noise")),
            number(one.get("margin")),
            {True: "yes", False: "no"}.get(one.get("decided"), ""),  # type: ignore[arg-type]
        ]
        for one in edges
    ]
    header = ("node", "from", "operation", "weight", "noise", "margin", "decided")
    return Table(header, rows, frozenset({2, 6}), title=f"Edges of the {kind} cell")


def _seeds(made: Mapping[str, Any]) -> Table:
    rows = [
        [str(row["seed"]), size(row["params"]), size(row["macs"]), duration(row["seconds"])]
        for row in made["per_seed"]
    ]
    chosen = [place for place, row in enumerate(made["per_seed"]) if row["seed"] == made.get("chosen_seed")]
    shared = ", ".join(percent(value, 0) for value in made.get("edges_shared_between_pairs") or ())
    note = f"Edges shared between pairs of seeds: {shared}." if shared else ""
    header = ("seed", "parameters", "MACs", "time")
    return Table(header, rows, marked=frozenset(chosen), title="Seeds", note=note)


def _fitness(fitness: Mapping[str, Any]) -> Table:
    rows = [
        [key, percent(fitness[key].get("clean")), percent(fitness[key].get("robust"))]
        for key in ("supernet", "derived")
        if isinstance(fitness.get(key), dict)
    ]
    note = (
        f"{fitness.get('attack', '')}, {fitness.get('images')} images, chance {percent(fitness.get('chance'))}; the "
        "derived network has the weights of the supernet."
    )
    return Table(("network", "clean", "robust"), rows, title="With inherited weights", note=note)


def _over_time(part: Part) -> list[Block]:
    """Return entropy with its ln K line, and the edge weights, by record."""
    operations = [str(name) for name in (part.record("alphas.json") or {}).get("operations", ())]
    entropies = [row for row in part.metrics if isinstance(row.get("entropy"), dict)]
    weighted = [row for row in part.metrics if isinstance(row.get(WEIGHTS), dict)]
    blocks: list[Block] = []
    if entropies:
        kinds = list(entropies[-1]["entropy"])
        x = [row.get("step", place) for place, row in enumerate(entropies)]
        lines = [Line(kind, x, [row["entropy"].get(kind) for row in entropies]) for kind in kinds]
        count = len(operations) or _width(weighted)
        levels = [(f"ln {count}: all alike", math.log(count))] if count > 1 else []
        limits = (0.0, 1.1 * math.log(count)) if count > 1 else None
        axis = Axis("alpha entropy, mean over edges", "step", "nats", limits)
        blocks.append(Charts("Entropy", [line_chart(axis, lines, levels=levels)], kinds))
    if weighted:
        blocks.append(Details("Edge weights over time", _weights(weighted, operations)))
    return blocks


def _weights(rows: Sequence[Mapping[str, Any]], operations: Sequence[str]) -> list[Block]:
    """Return a block of small charts for each kind of cell, one an edge, on the scale of all of them."""
    x = [row.get("epoch", place) + 1 for place, row in enumerate(rows)]
    names = list(operations) or [f"operation {place}" for place in range(_width(rows))]
    top = max(w for row in rows for edges in row[WEIGHTS].values() for edge in edges for w in edge)
    blocks: list[Block] = []
    for kind, edges in rows[-1][WEIGHTS].items():
        charts = [
            line_chart(
                Axis(f"edge {edge + 1}", limits=(0.0, max(top, 2 / len(names)))),
                [
                    Line(name, x, [row[WEIGHTS][kind][edge][place] for row in rows])
                    for place, name in enumerate(names)
                ],
                width=180,
                height=110,
            )
            for edge in range(len(edges))
        ]
        blocks.append(Charts(f"{kind} cell", charts, names, "x: epoch; y: softmax of the alphas", small=True))
    return blocks


def _width(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of operations of an edge, 0 where none is recorded."""
    edges = next(iter(rows[-1][WEIGHTS].values()), ()) if rows else ()
    return len(edges[0]) if edges else 0

"""A benchmark on a table of trained networks: of strategies by evaluations, or of scores against a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.workflows.report.blocks import MISSING, Block, Section, Table, Text, duration, number, percent
from robust_nas.workflows.report.part import BENCHMARK, Part


def benchmark(part: Part) -> Section | None:
    """Return the section of `benchmark.json`."""
    tree = part.record(BENCHMARK)
    if tree is None:
        return None
    return _scores(tree) if "scores" in tree else _strategies(tree)


def _strategies(tree: Mapping[str, Any]) -> Section:
    ends = {name: one["points"][-1] for name, one in tree["strategies"].items()}
    best = min(ends, key=lambda name: float(ends[name]["regret"]))
    last, evaluations = ends[best], [point["evaluations"] for point in tree["strategies"][best]["points"]]
    goal = ", ".join(f"{name} ({way})" for name, way in tree["objectives"].items())
    answer = (
        f"After {evaluations[-1]} evaluations {best} is first: {tree['measure']} {_interval(last, 'mean')}, of all "
        f"{tree['networks']} networks {number(tree['optimum'])}."
    )
    above = ", ".join(f"{name} {number(value)}" for name, value in tree["reference"].items())
    header = ("strategy", *(str(count) for count in evaluations))
    note = f"{goal}{f'; above {above}' if above else ''}. In brackets: 95 % bootstrap intervals over runs."

    def rows(key: str) -> list[list[str]]:
        return [
            [name, *(_interval(point, key) for point in one["points"])]
            for name, one in tree["strategies"].items()
        ]

    marked = frozenset({list(ends).index(best)})
    cost = [
        [name, str(one["runs"]), duration(one["cpu_seconds"]), percent(ends[name]["optimal"], 0), _early(one)]
        for name, one in tree["strategies"].items()
    ]
    asked = ("strategy", "runs", "CPU time", "no regret at the end", "ended early")
    blocks: list[Block] = [
        Table(header, rows("mean"), marked=marked, title=tree["measure"].capitalize(), note=note),
        Table(
            header, rows("regret"), marked=marked, title="Regret", note="What is missing to all of the table."
        ),
        Table(asked, cost, title="Runs", note="Ended early: nothing new was left to propose."),
    ]
    blocks += [Text(f"Left out: {name}: {reason}", "soft") for name, reason in tree["left_out"].items()]
    return Section("Strategies on a table", answer, blocks, [_LIMIT])


_LIMIT = (
    "A table holds one training of each network by one recipe: intervals are over runs or networks of this table, not "
    "over trainings, spaces or data."
)


def _early(one: Mapping[str, Any]) -> str:
    return f"{one['ended_early']} of {one['runs']}" if one["ended_early"] else ""


def _interval(point: Mapping[str, Any], key: str) -> str:
    low, high = ("low", "high") if key == "mean" else (f"{key}_low", f"{key}_high")
    return f"{point[key]:.4g} [{point[low]:.4g}, {point[high]:.4g}]"


def _scores(tree: Mapping[str, Any]) -> Section:
    scores = tree["scores"]
    ranked = {name: one["measures"]["spearman"]["value"] for name, one in scores.items()}
    known = {name: value for name, value in ranked.items() if value is not None}
    answer = ""
    if known:
        best = max(known, key=lambda name: float(known[name]))
        answer = (
            f"Of {len(scores)} scores {best} ranks {tree['architectures']} networks best by {tree['column']}: Spearman "
            f"{_estimate(scores[best]['measures']['spearman'])}."
        )
    names = list(next(iter(scores.values()))["measures"])

    def rows(key: str, chosen: list[str]) -> list[list[str]]:
        return [[name, *(_estimate(scores[each][key][name]) for each in chosen)] for name in names]

    note = "In brackets: 95 % bootstrap intervals over networks."
    first, *others = scores
    blocks: list[Block] = [
        Table(("measure", *scores), rows("measures", list(scores)), title="Agreement", note=note)
    ]
    if others:
        title = f"Minus {first}, on the same networks"
        blocks.append(Table(("measure", *others), rows("ahead_of_control", others), title=title))
    if tree["left_out"]:
        blocks.append(Text(f"Left out, without a value: {tree['left_out']} networks.", "soft"))
    return Section("Scores on a table", answer, blocks, [_LIMIT])


def _estimate(found: Mapping[str, Any]) -> str:
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    if value is None:
        return MISSING
    return f"{value:.3g}" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"

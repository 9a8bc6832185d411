"""A ranking of candidates, best first."""

from __future__ import annotations

from robust_nas.workflows.report.blocks import Block, Section, Table, number, size
from robust_nas.workflows.report.part import Part

SHOWN = 50  # candidates; the file has all


def ranking(part: Part) -> Section | None:
    """Return the section of a ranking's `result.json`."""
    made = part.result
    rows = made.get("ranking")
    if not rows:
        return None
    best = rows[0]
    answer = (
        f"Of {made['number']} candidates {best['name']} is first by {made['method']}: score "
        f"{number(best.get('score'))}, {size(best['params'])} parameters, {size(best['macs'])} MACs."
    )
    columns = [key for key in best if key not in ("rank", "name", "params", "macs")]
    said = [
        [str(row["rank"]), str(row["name"]), size(row["params"]), size(row["macs"])]
        + [number(row.get(key)) for key in columns]
        for row in rows[:SHOWN]
    ]
    header = ("rank", "name", "parameters", "MACs", *(key.replace("_", " ") for key in columns))
    note = f"The first {SHOWN} of {len(rows)}; ranking.csv has all." if len(rows) > SHOWN else ""
    blocks: list[Block] = [Table(header, said, frozenset({1}), title="Candidates", note=note)]
    limits = [
        "A score of an untrained or shortly trained network is no accuracy; docs/how-to/ranking.md says how it ranks."
    ]
    return Section("Ranking", answer, blocks, limits)

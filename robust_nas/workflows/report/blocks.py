"""What a section of a report is made of: plain values, which the template alone turns into HTML and escapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from markupsafe import Markup

MISSING = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Text:
    """A paragraph; `tone` is plain, soft or warn."""

    kind: ClassVar[str] = "text"

    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Facts:
    """Names and values next to each other."""

    kind: ClassVar[str] = "facts"

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table; the columns in `words` are texts, the others numbers; the rows in `marked` stand out."""

    kind: ClassVar[str] = "table"

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})
    marked: frozenset[int] = frozenset()
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Small charts of lines under one legend (`charts.py`)."""

    kind: ClassVar[str] = "charts"

    title: str
    charts: Sequence[Markup]
    legend: Sequence[str] = ()
    note: str = ""
    small: bool = False


@dataclass(frozen=True)
class Details:
    """Blocks that are folded at first."""

    kind: ClassVar[str] = "details"

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Text | Facts | Table | Charts | Details


@dataclass(frozen=True)
class Section:
    """A section: its answer in one sentence, what shows it, and what it cannot show."""

    title: str
    answer: str = ""
    blocks: Sequence[Block] = ()
    limits: Sequence[str] = ()


def percent(value: Any, digits: int = 1) -> str:
    """Return a share (0..1) as per cent."""
    return f"{100 * value:.{digits}f} %" if _is_number(value) else MISSING


def score(row: Mapping[str, Any] | None) -> str:
    """Return the accuracy of a record with its interval, both in per cent."""
    if not row:
        return MISSING
    value = row.get("accuracy", row.get("share"))
    ends: Any = row.get("interval") or (row.get("low"), row.get("high"))
    low, high = ends
    between = f" [{100 * low:.1f}, {100 * high:.1f}]" if _is_number(low) and _is_number(high) else ""
    return percent(value) + between


def size(value: Any) -> str:
    """Return 1234567 as 1.23 M."""
    if not _is_number(value):
        return MISSING
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {letter}"
    return f"{value:g}"


def duration(seconds: Any) -> str:
    """Return seconds as seconds, minutes or hours."""
    if not _is_number(seconds):
        return MISSING
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def number(value: Any) -> str:
    """Return a number in four digits, and any other value as text."""
    if value is None:
        return MISSING
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def times(before: Any, after: Any) -> str:
    """Return how much faster or slower `after` milliseconds are than `before`."""
    if not (_is_number(before) and _is_number(after) and before > 0 and after > 0):
        return MISSING
    ratio = before / after
    if 0.995 < ratio < 1.005:
        return "as fast"
    return f"{ratio:.2f} x faster" if ratio > 1 else f"{1 / ratio:.2f} x slower"


def threat(tree: Mapping[str, Any] | None) -> str:
    """Return a threat model as text."""
    return f"{tree['norm']} eps {tree['eps']:.4g}" if tree else MISSING


def flat(tree: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield dotted keys and their values as text, in order; lists of plain values stay together."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list | tuple) and any(isinstance(value, Mapping) for value in tree):
        for place, value in enumerate(tree):
            yield from flat(value, f"{prefix}.{place}")
    elif isinstance(tree, list | tuple):
        yield prefix, ", ".join(map(str, tree))
    else:
        yield prefix, "none" if tree is None else str(tree)


def findings(found: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return the findings of a verdict with their reasons; those that passed are folded."""
    passed = [one for one in found if one.get("status") == "PASS"]
    others = [one for one in found if one.get("status") != "PASS"]
    title = f"Findings: {len(passed)} of {len(found)} passed"
    blocks: list[Block] = [_findings(others, title)] if others else []
    return (
        [*blocks, Details(f"{len(passed)} passed" if others else title, [_findings(passed)])]
        if passed
        else blocks
    )


def _findings(found: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    keys = ("status", "name", "value", "allowed", "text", "next_step")
    rows = [[number(one.get(key, "")) for key in keys] for one in found]
    marked = frozenset(place for place, row in enumerate(rows) if row[0] not in ("PASS", "NOT RUN"))
    header = ("", "finding", "value", "allowed", "what was seen", "what to do")
    last = 6 if any(row[5] for row in rows) else 5
    return Table(header[:last], [row[:last] for row in rows], frozenset({0, 1, 3, 4, 5}), marked, title)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

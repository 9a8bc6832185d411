"""Cells as drawings: states in columns from left to right, every edge through a label with its operation.

A label is an item of the layout like a state is, just before the state it leads to. So two edges
from one source to one state are two lines, and no label can lie on another, on a state, or on a foreign line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from robust_nas.errors import ArchitectureError, RunError
from robust_nas.figures import style
from robust_nas.figures.cell_edges import Nodes, Weight, Weights, edge_table
from robust_nas.figures.figure import Figure, Job, Record
from robust_nas.figures.layout import heights

CONCLUSIVE = "CONCLUSIVE"  # the verdict on a search whose cells are drawn in full

_INPUTS = ("cₖ₋₂", "cₖ₋₁")
_OUTPUT = "cₖ"
_OTHER = "other operation"

# Lengths in points.
_FONT = 9.5
_RADIUS = 14.0
_LABEL_HEIGHT = 18.0
_LETTER = 0.62 * _FONT
_FAN = 44.0
_ARROW = 30.0
_HEAD = 7.0
_MARGIN = 12.0
_TITLE = 22.0
_LEGEND = 34.0
_LINE = 11.0
_DASHES = (0, (4.0, 2.5))
_LIGHT = 0.55  # opacity of the edges of a search that decides nothing
_ROOM = {"state": 2 * _RADIUS + 10, "label": _LABEL_HEIGHT + 8, "lane": 14.0}

_FAMILIES = (
    ("sep", "separable convolution", style.BLUE),
    ("dil", "dilated separable convolution", style.VERMILLION),
    ("skip", "skip connection", style.GREEN),
    ("max", "pooling", style.PURPLE),
    ("avg", "pooling", style.PURPLE),
    ("conv", "convolution", style.ORANGE),
    ("none", "no connection", style.YELLOW),
)
_LEGEND_ENTRIES = [*{family: colour for _, family, colour in _FAMILIES}.items(), (_OTHER, style.BLACK)]
_SHORT = {
    "skip_connect": "skip",
    "identity": "skip",
    "nor_conv": "conv",
    "sep_conv": "sep",
    "dil_conv": "dil",
    "max_pool": "max",
    "avg_pool": "avg",
}


class _Item(NamedTuple):
    """One thing in one column: a state, a label, or a lane that keeps the way free for a long edge."""

    role: str
    key: tuple[int | str, ...]


_END = _Item("state", ("output",))
_Places = Mapping[_Item, tuple[float, float]]


class _Edge(NamedTuple):
    items: tuple[_Item, ...]
    colour: str


class _Cell(NamedTuple):
    columns: list[list[_Item]]
    edges: list[_Edge]
    text: dict[_Item, str]
    colour: dict[_Item, str]


class Cells(Figure):
    """The cells that a search found."""

    of: ClassVar[Job] = "search"
    needs: ClassVar[tuple[str, ...]] = ("cells",)

    name: Literal["cells"] = "cells"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `cells`; the record may have `concat` (states that make the output), `inputs`, `weights`, `verdict`."""
        return draw_cells(
            record["cells"],
            stem,
            concat=record.get("concat"),
            inputs=record.get("inputs", 2),
            caption=caption,
            weights=record.get("weights"),
            verdict=record.get("verdict", ""),
        )


def draw_cells(
    cells: Mapping[str, Nodes],
    stem: Path,
    *,
    concat: Mapping[str, Sequence[int]] | None = None,
    inputs: int = 2,
    caption: str = "",
    weights: Weights | None = None,
    verdict: str = "",
) -> tuple[Path, ...]:
    """Draw cells, a panel a kind, stacked; return the paths of PNG and SVG, and of the edges as CSV.

    Args:
        cells: kind -> nodes; a node is its (operation, source) pairs. With two inputs, sources 0 and 1 are the
            outputs of the two cells before, 2 is node 0, 3 is node 1, and so on.
        stem: where to write, without a suffix.
        concat: kind -> the sources (2 is node 0) concatenated into the cell's output; all nodes if absent.
        inputs: of a cell, 1 or 2; with one, source 0 is the output of the cell before and 1 is node 0.
        caption: a line of text under the drawing.
        weights: of every edge, as `cells` has them; labels show them.
        verdict: on the search, a word; cells of any but `CONCLUSIVE` are drawn in dashed and lighter lines, and say it.

    Raises:
        ArchitectureError: an edge comes from a state that is not before its node.
        RunError: there is no cell to draw, or the files cannot be written.
    """
    outputs = {
        kind: tuple((concat or {}).get(kind, range(inputs, inputs + len(cells[kind])))) for kind in cells
    }
    figure = cells_figure(cells, outputs, caption, inputs, weights, verdict)
    return style.save(figure, stem, edge_table(cells, outputs, inputs, weights, verdict))


def short_name(operation: str) -> str:
    """Return a short name that fits on an edge: `sep 3x3` for `sep_conv_3x3`."""
    for long, short in _SHORT.items():
        operation = operation.replace(long, short)
    return operation.replace("_", " ")


@style.drawing()
def cells_figure(
    cells: Mapping[str, Nodes],
    concat: Mapping[str, Sequence[int]],
    caption: str = "",
    inputs: int = 2,
    weights: Weights | None = None,
    verdict: str = "",
) -> MatplotlibFigure:
    """Return the drawing, not yet written; its one axes is in points, so that boxes fit their text."""
    if not cells or not any(cells.values()):
        raise RunError("there is no cell to draw: expected at least one kind with at least one node")
    panels = {
        kind: _cell(kind, nodes, concat[kind], inputs, None if weights is None else weights[kind])
        for kind, nodes in cells.items()
    }
    doubtful = verdict not in ("", CONCLUSIVE)
    if verdict:
        caption = f"Verdict on the search: {verdict}. {caption}".strip()
    places = {kind: _placed(cell) for kind, cell in panels.items()}
    far = max(x for place in places.values() for x, _ in place.values()) + _RADIUS + _MARGIN
    width = max(far, 72 * style.WIDTH)
    tall = {
        kind: max(y + _ROOM[item.role] / 2 for item, (_, y) in place.items())
        for kind, place in places.items()
    }
    foot = _LEGEND + _LINE * (style.wrap(caption, width / 72).count("\n") + 1 if caption else 0)
    height = sum(tall.values()) + len(tall) * _TITLE + foot

    figure = MatplotlibFigure(figsize=(width / 72, height / 72), dpi=style.DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    top = 0.0
    for number, (kind, cell) in enumerate(panels.items()):
        if number:
            axes.plot([_MARGIN, width - _MARGIN], [top, top], color="#D8D8D8", linewidth=0.8)
        title = f"{kind} cell ({verdict.lower()})" if doubtful else f"{kind} cell"
        axes.text(_MARGIN, top + 14, title, fontsize=11, fontweight="bold", va="center")
        top += _TITLE
        _draw(axes, cell, {item: (x, y + top) for item, (x, y) in places[kind].items()}, doubtful)
        top += tall[kind]
    _legend(axes, panels.values(), top + _LEGEND / 2, width)
    if caption:
        text = style.wrap(caption, width / 72)
        axes.text(_MARGIN, top + _LEGEND - 3, text, fontsize=8, color=style.GREY, va="top")
    return figure


def _family(operation: str) -> tuple[str, str]:
    start = re.split(r"[ _]", short_name(operation))[0]
    for prefix, family, colour in _FAMILIES:
        if start == prefix:
            return family, colour
    return _OTHER, style.BLACK


def _cell(
    kind: str,
    nodes: Nodes,
    concat: Sequence[int],
    inputs: int,
    weights: Sequence[Sequence[Weight]] | None = None,
) -> _Cell:
    """Return the cell's items in columns: states at even columns by longest path, labels just before their state."""
    last = inputs + len(nodes) - 1
    rank = [0] * inputs
    for target, node in enumerate(nodes, start=inputs):
        for name, source in node:
            if not 0 <= source < target:
                raise ArchitectureError(
                    f"{kind} cell: {name!r} into state {target} comes from {source}, not from 0..{target - 1}"
                )
        rank.append(1 + max((rank[source] for _, source in node), default=0))
    if bad := [source for source in concat if not inputs <= source <= last]:
        raise ArchitectureError(
            f"{kind} cell: concat names {bad}, not among the nodes' states {inputs}..{last}"
        )

    cell = _Cell([[] for _ in range(2 * max(rank) + 2)], [], {}, {})
    states = [_Item("state", (i,)) for i in range(last + 1)]
    for item, at in zip(states, rank, strict=True):
        _put(cell, item, 2 * at)
    _put(cell, _END, len(cell.columns) - 1)
    cell.text.update(zip(states, [*_INPUTS[-inputs:], *map(str, range(len(nodes)))], strict=True))
    cell.text[_END] = _OUTPUT

    for target, node in enumerate(nodes, start=inputs):
        for slot, (name, source) in enumerate(node):
            label = _Item("label", (target, slot))
            weight = "" if weights is None else f"  {weights[target - inputs][slot]}"
            cell.text[label], cell.colour[label] = short_name(name) + weight, _family(name)[1]
            between = range(2 * rank[source] + 1, 2 * rank[target] - 1)
            lanes = [_Item("lane", (target, slot, column)) for column in between]
            for item, column in [*zip(lanes, between, strict=True), (label, 2 * rank[target] - 1)]:
                _put(cell, item, column)
            cell.edges.append(_Edge((states[source], *lanes, label, states[target]), cell.colour[label]))
    for source in concat:
        # All of these end in one place, so they share one lane: a bus.
        between = range(2 * rank[source] + 1, len(cell.columns) - 1)
        lanes = [_Item("lane", ("bus", column)) for column in between]
        for item, column in zip(lanes, between, strict=True):
            _put(cell, item, column)
        cell.edges.append(_Edge((states[source], *lanes, _END), style.GREY))
    return cell


def _put(cell: _Cell, item: _Item, column: int) -> None:
    if item not in cell.columns[column]:
        cell.columns[column].append(item)


def _half_width(cell: _Cell, item: _Item) -> float:
    if item.role == "label":
        return (len(cell.text[item]) * _LETTER + 12) / 2
    return _RADIUS


def _placed(cell: _Cell) -> dict[_Item, tuple[float, float]]:
    graph = nx.DiGraph()
    graph.add_nodes_from(item for column in cell.columns for item in column)
    for edge in cell.edges:
        for left, right in pairwise(edge.items):
            # Gansner et al. (1993): the longer the way, the straighter it should be.
            graph.add_edge(left, right, weight=(1, 3, 8)[(left.role == "lane") + (right.role == "lane")])
    size: dict[Hashable, float] = {item: _ROOM[item.role] for item in graph}
    y = heights(graph, cell.columns, size)
    lowest = min(y[item] - size[item] / 2 for item in graph)

    x, at = {}, _MARGIN
    for number, column in enumerate(cell.columns):
        half = max(_half_width(cell, item) for item in column)
        at += half
        x.update(dict.fromkeys(column, at))
        at += half + (_FAN if number % 2 == 0 else _ARROW)
    return {item: (x[item], y[item] - lowest) for item in x}


def _draw(axes: Axes, cell: _Cell, place: _Places, doubtful: bool) -> None:
    searched = {"linestyle": _DASHES if doubtful else "-", "capstyle": "butt" if doubtful else "round"}
    ports = _ports(cell, place)
    reach = {
        item: max(_half_width(cell, other) for other in column) for column in cell.columns for item in column
    }
    for edge in cell.edges:
        bus = edge.items[-1] == _END
        stop = next((i for i, item in enumerate(edge.items) if item.role == "label"), None)
        pieces = [edge.items] if stop is None else [edge.items[: stop + 1], edge.items[stop:]]
        tone = _LIGHT if doubtful and not bus else 1.0
        for piece in pieces:
            line = PathPatch(_curve(piece, place, ports, reach), fill=False, edgecolor=edge.colour)
            line.set(linewidth=1.2 if bus else 1.9, zorder=1 if bus else 2, alpha=tone)
            line.set(**({"capstyle": "round"} if bus else searched))
            axes.add_patch(line)
            if piece[-1].role == "state":
                x, y = ports[piece[-1], piece[-2]]
                head = [(x, y), (x - _HEAD, y - _HEAD / 2), (x - _HEAD, y + _HEAD / 2)]
                axes.add_patch(Polygon(head, facecolor=edge.colour, edgecolor="none", zorder=2.5, alpha=tone))
    leads_on = {edge.items[0] for edge in cell.edges} | {_END}
    for item, text in cell.text.items():
        x, y = place[item]
        if item.role == "label":
            half = _half_width(cell, item)
            corner = (x - half, y - _LABEL_HEIGHT / 2)
            box = FancyBboxPatch(corner, 2 * half, _LABEL_HEIGHT, boxstyle="round,pad=0,rounding_size=6")
            box.set(facecolor="white", edgecolor=cell.colour[item], linewidth=1.5, zorder=3)
            box.set(linestyle=searched["linestyle"])
            axes.add_patch(box)
        else:
            face = "#E9EEF2" if text in (*_INPUTS, _OUTPUT) else "white"
            circle = Circle((x, y), _RADIUS, facecolor=face, edgecolor="black", linewidth=1.2, zorder=3)
            if item not in leads_on:
                circle.set(facecolor="white", edgecolor="#9A9A9A", linestyle="--")
            axes.add_patch(circle)
        axes.text(x, y, text, fontsize=_FONT, ha="center", va="center", zorder=4)


def _ports(cell: _Cell, place: _Places) -> dict[tuple[_Item, _Item], tuple[float, float]]:
    """Return the point where the line between two neighbours touches the first: on a circle, sorted by height."""
    ports = {}
    for item, (x, y) in place.items():
        half = _half_width(cell, item)
        for side, turn in ((-1, -1), (1, 1)):
            links = (pair[::turn] for edge in cell.edges for pair in pairwise(edge.items))
            near = sorted({other for this, other in links if this == item}, key=lambda other: place[other][1])
            for number, other in enumerate(near):
                step = min(26.0, 110.0 / len(near)) if item.role == "state" else 0.0
                angle = math.radians(step * (number - (len(near) - 1) / 2))
                ports[item, other] = (x + side * half * math.cos(angle), y + half * math.sin(angle))
    return ports


def _curve(
    items: Sequence[_Item],
    place: _Places,
    ports: Mapping[tuple[_Item, _Item], tuple[float, float]],
    reach: Mapping[_Item, float],
) -> Curve:
    """Return a line that is level across columns and bends only between them, where nothing else is drawn."""
    points, codes = [ports[items[0], items[1]]], [Curve.MOVETO]
    for left, right in pairwise(items):
        start, end = ports[left, right], ports[right, left]
        bend_from = (place[left][0] + reach[left], start[1])
        bend_to = (place[right][0] - reach[right], end[1])
        middle = (bend_from[0] + bend_to[0]) / 2
        points += [start, bend_from, (middle, start[1]), (middle, end[1]), bend_to, end]
        codes += [Curve.LINETO] * 2 + [Curve.CURVE4] * 3 + [Curve.LINETO]
    return Curve(points, codes)


def _legend(axes: Axes, cells: Iterable[_Cell], y: float, width: float) -> None:
    used = {colour for cell in cells for colour in cell.colour.values()}
    entries = [(family, colour) for family, colour in _LEGEND_ENTRIES if colour in used]
    entries.append(("concatenated into the output", style.GREY))
    wanted = sum(0.58 * style.LEGEND_SIZE * len(family) + 32 for family, _ in entries)
    axes.legend(
        [Line2D([], [], color=colour, linewidth=2.2) for _, colour in entries],
        [family for family, _ in entries],
        loc="center left",
        bbox_to_anchor=(_MARGIN, y),
        bbox_transform=axes.transData,
        borderaxespad=0,
        borderpad=0,
        ncols=math.ceil(len(entries) / math.ceil(wanted / width)),
        handlelength=1.4,
        handletextpad=0.5,
        labelspacing=0.3,
        columnspacing=1.4,
    )

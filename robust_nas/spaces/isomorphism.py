"""Isomorphism classes: architectures that count as one network get one text.

Two rules, by the kind of cell:

- A cell that sums its edges, has one output node and keeps the resolution: the rule of NAS-Bench-201 (Dong and Yang,
  ICLR 2020), whose tables hold one row a class. A node is the sorted sum of its terms: `(sum)@operation`, the source's
  sum alone for a skip edge, `#` for a zero edge and for an edge from a state that is `#`. The 15,625 cells have 6,466
  classes. The rule is the benchmark's, not algebra. It keeps zeros within sums and sorts texts, so some equal networks
  have several classes. It compares expressions, so one convolution that is used twice and two with weights of their own
  are one class.
- Every other cell (DARTS): relabelling of nodes and the order of edges alone. The skip of a reduction cell is no
  identity, and concatenated nodes may be listed in any order: the layer behind permutes its weights with them.

Size, layout and name are not part of a class: a table holds networks of one size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product

from robust_nas.errors import ArchitectureError
from robust_nas.operations import OPERATIONS
from robust_nas.spaces.architecture import Architecture
from robust_nas.spaces.cell import has_cells

Nodes = Sequence[Sequence[tuple[str, int]]]  # of every node its edges, as (operation, source)


def isomorphism_class(architecture: Architecture) -> str:
    """Return the class of an architecture's genotype, cells by their kind.

    Raises `ArchitectureError` for a family without a genotype.
    """
    if not has_cells(architecture):
        raise ArchitectureError(f"{architecture.name}: {architecture.called} has no genotype to compare")
    reductions = architecture.layout.reduction_cells
    classes = {
        cell.kind: cell_class(
            cell.nodes,
            inputs=cell.inputs,
            concat=cell.concat,
            simplify=simplifies(cell.aggregation, len(cell.concat), cell.kind in reductions),
        )
        for cell in architecture.genotype
    }
    return architecture_class(classes) + architecture.activation_code


def architecture_class(classes: dict[str, str]) -> str:
    """Return the class of a genotype from the classes of its cells by kind."""
    return " ".join(f"{kind}:{classes[kind]}" for kind in sorted(classes))


def simplifies(aggregation: str, outputs: int, reduces: bool) -> bool:
    """Return whether zero edges vanish and skip edges are identities in a cell of this many output nodes."""
    return aggregation == "sum" and outputs == 1 and not reduces


def cell_class(nodes: Nodes, *, inputs: int, concat: Sequence[int], simplify: bool) -> str:
    """Return the class of one cell from plain data; `simplify` is what `simplifies` says of such cells.

    `nodes` are the edges into every node as (operation, source), sources numbered with the `inputs` first; `concat` are
    the states that form the output.
    """
    return _expression(nodes, inputs, concat[0]) if simplify else _relabelled(nodes, inputs, concat)


def is_connected(nodes: Nodes, *, inputs: int, concat: Sequence[int]) -> bool:
    """Return whether the output of a cell depends on its inputs: whether a path without zero edges joins them."""
    reached = [True] * inputs
    for node in nodes:
        reached.append(any(reached[source] and OPERATIONS.get(name).connects for name, source in node))
    return any(reached[state] for state in concat)


def _expression(nodes: Nodes, inputs: int, output: int) -> str:
    sums = [str(number) for number in range(inputs)]  # of every state
    for node in nodes[: output - inputs + 1]:
        terms = []
        for name, source in node:
            operation, x = OPERATIONS.get(name), sums[source]
            if x == "#" or not operation.connects:
                terms.append("#")
            else:
                terms.append(x if operation.is_skip else f"({x})@{name}")
        sums.append("+".join(sorted(terms)))
    return sums[output]


def _relabelled(nodes: Nodes, inputs: int, concat: Sequence[int]) -> str:
    """Return the least text of the cell over all orders of its nodes that its own structure leaves open."""
    output = frozenset(concat)
    return min(_written(nodes, inputs, output, order) for order in _orders(nodes, inputs, output))


def _orders(nodes: Nodes, inputs: int, output: frozenset[int]) -> Iterator[list[int]]:
    """Yield orders of the nodes: by depth, then by what they compute; nodes that agree in both in every order."""
    depths, texts = [0] * inputs, [f"x{number}" for number in range(inputs)]
    for number, node in enumerate(nodes, inputs):
        edges = sorted(f"{operation}({texts[source]})" for operation, source in node)
        depths.append(1 + max(depths[source] for _, source in node))
        texts.append(f"[{'+'.join(edges)}]{'!' if number in output else ''}")
    groups: dict[tuple[int, str], list[int]] = {}
    for number in range(inputs, len(texts)):
        groups.setdefault((depths[number], texts[number]), []).append(number)
    for choice in product(*(permutations(groups[key]) for key in sorted(groups))):
        yield [number for group in choice for number in group]


def _written(nodes: Nodes, inputs: int, output: frozenset[int], order: Sequence[int]) -> str:
    place = {number: number for number in range(inputs)}
    place |= {number: position for position, number in enumerate(order, inputs)}
    parts = []
    for number in order:
        edges = sorted(f"{operation}~{place[source]}" for operation, source in nodes[number - inputs])
        parts.append(f"|{'|'.join(edges)}|{'!' if number in output else ''}")
    return "+".join(parts)

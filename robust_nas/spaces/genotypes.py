"""Read published cells: `Genotype(...)` text as DARTS, PC-DARTS, AdvRush and ARNAS print it, NAS-Bench-201's strings.

    NAME = Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=[2, ...])
    |nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|

A text is a `genotypes.py`, the log of a search, or the cell alone. It is parsed, never executed: lists, tuples, texts,
whole numbers and `range` are taken, nothing else. The kinds of its cells (normal and reduce; accurate, reduce and
robust) choose the search space, whose layout and size the architecture gets.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from robust_nas.config import MAX_YAML_BYTES, check, to_dict
from robust_nas.errors import ArchitectureError
from robust_nas.operations import OPERATIONS
from robust_nas.spaces.cell import CellArchitecture
from robust_nas.spaces.files import shipped_names
from robust_nas.spaces.nas_bench_201 import STRING, NASBench201Architecture
from robust_nas.spaces.space import CellSpace, Size, load_space

MOST_PROBLEMS = 20
LONGEST = 20_000  # characters of a genotype in a log
_CALL = re.compile(r"(?:([A-Za-z_]\w*)\s*=\s*)?\bGenotype\w*\s*\(")


class Imported(NamedTuple):
    """An architecture from a published text, its space, and why it is not of this space (None: it is)."""

    architecture: CellArchitecture
    space: CellSpace
    mismatch: str | None


def import_architecture(
    path: Path,
    *,
    name: str | None = None,
    space: str | None = None,
    cells: int | None = None,
    channels: int | None = None,
) -> Imported:
    """Return the architecture of a file with published cells, at the final size of its space or another one.

    `name` chooses one of several in the file; `space` is a name or a file (default: the shipped one with these kinds of
    cells). Raises `ArchitectureError` that names the operation or edge, or lists what the file holds.
    """
    found = _read(path)
    name = _chosen(name, found, path)
    chosen = _space_for(found[name], f"{path}: {name}", space)
    size = Size(cells=cells or chosen.network.cells, channels=channels or chosen.network.channels)
    return _imported(found[name], path, name, chosen, size)


def import_all(path: Path, *, space: str | None = None) -> list[CellArchitecture]:
    """Return every architecture of a file with published cells, at the final size of its space, in their order.

    Raises `ArchitectureError` as `import_architecture` does, and for a file without any.
    """
    found = _read(path)
    if not found:
        _chosen(None, found, path)
    spaces: dict[frozenset[str], CellSpace] = {}
    made = []
    for name, value in found.items():
        kinds = frozenset(_kinds_of(value, f"{path}: {name}"))
        if kinds not in spaces:
            spaces[kinds] = _space_for(value, f"{path}: {name}", space)
        chosen = spaces[kinds]
        made.append(_imported(value, path, name, chosen, chosen.network).architecture)
    return made


def _kinds_of(value: ast.Call | str, source: str) -> set[str]:
    return {"cell"} if isinstance(value, str) else _kinds(value, source)


def _space_for(value: ast.Call | str, source: str, space: str | None) -> CellSpace:
    """Return the space that is named, or the shipped one with these kinds of cells. Raises `ArchitectureError`."""
    kinds = _kinds_of(value, source)
    chosen = _space_of(kinds, source) if space is None else load_space(space)
    if kinds != set(chosen.kinds):
        raise ArchitectureError(
            f"{source}: its cells are {', '.join(sorted(kinds))}; {chosen.name} has {', '.join(chosen.kinds)}"
        )
    return chosen


def _imported(value: ast.Call | str, path: Path, name: str, chosen: CellSpace, size: Size) -> Imported:
    """Return the architecture of one genotype of a file."""
    source = f"{path}: {name}"
    if isinstance(value, str):
        try:
            made: CellArchitecture = NASBench201Architecture.from_string(value, size.cells, size.channels)
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from None
    else:
        label = name if name.isidentifier() else path.stem
        made = _from_call(value, chosen, size, _name(label), source)
    return Imported(made, chosen, chosen.mismatch(made))


def _chosen(name: str | None, found: Mapping[str, object], path: Path) -> str:
    """Return the name of the genotype that is meant. Raises `ArchitectureError`."""
    listed = ", ".join(list(found)[:50])
    if not found:
        raise ArchitectureError(
            f"{path}: holds no Genotype(normal=[...], ...), nor {NASBench201Architecture.named_as}"
        )
    if name is None and len(found) > 1:
        raise ArchitectureError(f"{path}: holds {len(found)} genotypes; choose one with --name: {listed}")
    if name is not None and name not in found:
        raise ArchitectureError(f"{path}: holds no genotype {name[:100]!r}; it holds {listed}")
    return next(iter(found)) if name is None else name


def _read(path: Path) -> dict[str, ast.Call | str]:
    """Return every genotype of a file, by the name that it is assigned to, or its number; a later one counts."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ArchitectureError(
                f"{path}: is too large; a file of genotypes has at most {MAX_YAML_BYTES} bytes"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArchitectureError(f"{path}: cannot be read: {error}") from None
    found: dict[str, ast.Call | str] = {}
    strings = [(None, match[0]) for match in STRING.finditer(text)]
    values: list[tuple[str | None, ast.Call | str]] = [*_calls(text), *strings]
    for name, value in values:
        found[name or str(len(found) + 1)] = value
    return found


def _calls(text: str) -> Iterator[tuple[str | None, ast.Call]]:
    """Yield name and call of every genotype: of a Python file, or of each place of a log that begins like one."""
    tree = _parsed(text)
    if tree is not None:
        yield from _calls_of(tree)
        return
    text = re.sub(r"(?m)^\s*#.*$", "", text)
    ends = _closing(text)
    for match in _CALL.finditer(text):
        end = ends.get(match.end() - 1, match.start() + LONGEST)
        if end < match.start() + LONGEST and (call := _parsed(text[match.start() : end + 1])) is not None:
            yield from _calls_of(call)


def _calls_of(tree: ast.Module) -> Iterator[tuple[str | None, ast.Call]]:
    known: dict[str, ast.Call] = {}
    for statement in tree.body:
        value = getattr(statement, "value", None)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(value, ast.Name) and value.id in known:
            value = known[value.id]
        if names and isinstance(value, ast.Call) and _is_genotype(value):
            known |= dict.fromkeys(names, value)
            yield from ((name, value) for name in names)
        else:
            yield from ((None, each) for each in ast.walk(statement) if _is_genotype(each))


def _is_genotype(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _called(node).startswith("Genotype")


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _closing(text: str) -> dict[int, int]:
    """Return the place of the bracket that closes each round one, by the place of this one."""
    opened: list[int] = []
    found = {}
    for match in re.finditer(r"[()]", text):
        if match[0] == "(":
            opened.append(match.start())
        elif opened:
            found[opened.pop()] = match.start()
    return found


def _kinds(call: ast.Call, source: str) -> set[str]:
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ArchitectureError(
            f"{source}: keywords are needed, such as Genotype(normal=[...], normal_concat=[...])"
        )
    return {str(keyword.arg).removesuffix("_concat") for keyword in call.keywords}


def _space_of(kinds: set[str], source: str) -> CellSpace:
    """Return the shipped space with these kinds of cells."""
    spaces = [load_space(name) for name in shipped_names()]
    for space in spaces:
        if set(space.kinds) == kinds:
            return space
    known = "; ".join(f"{space.name}: {', '.join(space.kinds)}" for space in spaces)
    raise ArchitectureError(
        f"{source}: its cells are {', '.join(sorted(kinds))}; name a space with them by --space, as no shipped one "
        f"has them ({known})"
    )


def _from_call(call: ast.Call, space: CellSpace, size: Size, name: str, source: str) -> CellArchitecture:
    """Return the architecture of a call. Raises `ArchitectureError` that names every edge with a problem."""
    given = {str(keyword.arg): _plain(keyword.value, f"{source}: {keyword.arg}") for keyword in call.keywords}
    problems: list[str] = []
    cells = []
    for kind in space.kinds:
        if kind not in given or f"{kind}_concat" not in given:
            raise ArchitectureError(f"{source}: {kind} and {kind}_concat are both needed")
        nodes = _nodes(given[kind], space, f"{kind} cell", problems)
        cell = {"kind": kind, "inputs": space.topology.inputs, "aggregation": space.topology.aggregation}
        cells.append({**cell, "nodes": nodes, "concat": given[f"{kind}_concat"]})
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise ArchitectureError(f"{source}: {'; '.join(problems[:MOST_PROBLEMS])}{more}")
    tree = {
        "type": space.type,
        "name": name,
        **to_dict(size),
        "layout": to_dict(space.layout),
        "genotype": cells,
    }
    return check(space.family, tree, source, ArchitectureError)


def _nodes(edges: Any, space: CellSpace, place: str, problems: list[str]) -> list[list[Any]]:
    """Return the edges by node, of a flat list or of one list a node; what is wrong with them goes to `problems`."""
    if not isinstance(edges, list) or not edges:
        problems.append(f"{place}: got {str(edges)[:100]}; a list of (operation, source) is needed")
        return []
    if all(
        isinstance(node, list) and node and all(isinstance(edge, list) for edge in node) for node in edges
    ):
        nodes = edges
    else:
        kept = [space.kept(node) for node in range(space.nodes)]
        each = kept[0] if len(set(kept)) == 1 else 2
        if len(edges) % each:
            problems.append(f"{place}: {len(edges)} edges are no whole nodes of {each}")
        nodes = [edges[start : start + each] for start in range(0, len(edges), each)]
    for number, node in enumerate(nodes):
        for edge in node:
            problem = _problem(edge, number + space.topology.inputs)
            if problem:
                problems.append(f"{place}, node {number}: {problem}")
    return nodes


def _problem(edge: Any, states: int) -> str | None:
    """Return what is wrong with an edge into the node that follows this number of states, or None."""
    if not (isinstance(edge, list) and [type(part) for part in edge] == [str, int]):
        return f"got {str(edge)[:100]}; (operation, source) is needed"
    operation, source = edge
    if operation not in OPERATIONS.names():
        return f"operation {operation[:100]!r} is not known; known: {', '.join(OPERATIONS.names())}"
    return (
        None
        if 0 <= source < states
        else f"source {source} of {operation} is not before it; allowed: 0..{states - 1}"
    )


def _plain(node: ast.expr, place: str) -> Any:
    """Return the value of lists, tuples, texts, whole numbers and `range(a, b)`; tuples become lists."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(each, place) for each in node.elts]
    if isinstance(node, ast.Constant) and type(node.value) in (str, int):
        return node.value
    if (
        isinstance(node, ast.Call)
        and _called(node) == "range"
        and len(node.args) in (1, 2)
        and not node.keywords
    ):
        limits = [_plain(each, place) for each in node.args]
        if all(type(limit) is int and 0 <= limit <= 1000 for limit in limits):
            return list(range(*limits))
    raise ArchitectureError(
        f"{place}: got {ast.unparse(node)[:100]}; lists of ('operation', source), numbers and range are taken"
    )


def _name(text: str) -> str:
    """Return a text as the name of an architecture."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text).strip("._+-").lower()[:200] or "imported"

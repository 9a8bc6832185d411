"""The import rules of the design: a room knows only rooms above it, no two files import each other, and no sprawl."""

import ast
from functools import cache

import pytest
from package_files import ROOT, modules, python_files, read

BASE = (
    "_version", "checkpoints", "choices", "config", "config_paths", "descriptions", "distributed", "environment",
    "errors", "extension", "files", "finished_files", "lazy", "logger", "overrides", "record_log", "records",
    "registries", "registry", "run_folder", "schema", "stages", "timing", "user_code", "yaml_reader",
)  # fmt: skip
ROOMS = (
    "execution", "statistics", "figures", "data", "layers", "operations", "kernels", "spaces", "defences", "nets",
    "attacks", "evaluation", "training", "distillation", "search", "compression", "export", "integrations",
    "workflows", "studies", "cli",
)  # fmt: skip
LEVEL = dict.fromkeys(BASE, 0) | {room: number for number, room in enumerate(ROOMS, 1)}
# What a room must not know although it is above it.
MUST_NOT_KNOW = {"search": {"compression"}, "compression": {"search"}, "export": {"search"}}
LONGEST_FILE, LONGEST_FUNCTION = 400, 80


@cache
def imports(name):
    """Return the modules of the package that a file imports, anywhere in it, also for types alone."""
    found = set()
    for node in read(modules()[name]).imports:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("robust_nas")}
        elif (node.module or "").startswith("robust_nas"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in modules() else node.module for each in inner}
    return found


def room(name):
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", [name for name in modules() if room(name) in LEVEL])
def test_a_room_imports_only_rooms_above_it(name):
    own = room(name)
    for imported in imports(name):
        other = room(imported)
        assert other in LEVEL, f"{imported} is in no room of the design"
        assert LEVEL[other] <= LEVEL[own], f"{own} must not know {other}"
        assert other not in MUST_NOT_KNOW.get(own, ()), f"{own} must not know {other}"


def test_every_file_is_in_a_room():
    known = {"", "__main__", *LEVEL}
    assert {room(name) for name in modules()} <= known


def test_no_two_files_import_each_other():
    """Packages' own files count as what they list, not as an import of it."""
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    graph = {name: imports(name) - packages - {name} for name in modules() if name not in packages}
    assert not circles(graph)


def circles(graph):
    """Return the groups of nodes that reach each other (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    "path", [path for folder in ("robust_nas", "tests", "scripts") for path in python_files(folder)]
)
def test_no_file_and_no_function_is_too_long(path):
    file = read(ROOT / path)
    reason = "longer than usual because" in file.docstring
    assert reason or file.lines <= LONGEST_FILE
    for name, lines in file.functions:
        assert reason or lines <= LONGEST_FUNCTION, name

"""The Python files of the repository, for the tests that read them."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PythonFile:
    """What tests ask of a file: its lines, its docstring, its imports, and the lines of every function."""

    lines: int
    docstring: str
    imports: list[ast.Import | ast.ImportFrom]
    functions: list[tuple[str, int]]


@cache
def read(path):
    """Return what tests ask of a file, parsed once: the whole trees would fill the memory."""
    text = path.read_text()
    tree = ast.parse(text)
    found = PythonFile(len(text.splitlines()), ast.get_docstring(tree) or "", [], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imports.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.append((node.name, node.end_lineno - node.lineno + 1))
    return found


def python_files(folder):
    """Return the paths of a folder's Python files from the repository's root, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


@cache
def modules():
    """Return every file of the package by its dotted name."""
    found = {}
    for file in python_files("robust_nas"):
        path, parts = ROOT / file, Path(file).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found

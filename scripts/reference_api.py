"""The public names of the package as a page of the reference, read from the sources: nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

from reference_commands import GENERATED, cell, page

PACKAGE = Path(__file__).resolve().parents[1] / "robust_nas"
ABOUT = """\
Every command is one call, and these are all public names of `robust_nas`; they are imported when they are first used.
The signatures and docstrings below are filled in where the pages are built; in a plain file, follow the name to its
source. How a name fits into the whole is in [Commands](../how-to/commands.md#verbs)."""


def file_of(module: str) -> Path:
    """Return the file of a module of the package, given without the package's name; a stub goes first."""
    folder = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    choices = [folder / "__init__.pyi", folder / "__init__.py", folder.with_suffix(".py")]
    return next(path for path in choices if path.exists())


def source_of(module: str, name: str) -> tuple[Path, ast.AST]:
    """Return the file and the definition of a name, through the modules that only pass it on."""
    path = file_of(module)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in reversed(
        ast.parse(path.read_text()).body
    ):  # of a function with overloads the last is the whole one
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return source_of(_absolute(node, package), alias.name)
    raise LookupError(f"{name} is not defined in {path}")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the module that an import names, without the package's name."""
    if not node.level:
        return (node.module or "").removeprefix("robust_nas").lstrip(".")
    parents = package.split(".") if package else []
    return ".".join([*parents[: len(parents) - node.level + 1], node.module or ""])


def public_names() -> list[str]:
    """Return the public names that are functions or classes, sorted without regard to case."""
    body = ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    names = [alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return sorted((name for name in names if not name.startswith("_")), key=str.lower)


def python_api() -> str:
    """Return the page of the public names."""
    rows, entries = ["| name | does | source |", "|---|---|---|"], []
    for name in public_names():
        path, node = source_of("", name)
        where = path.relative_to(PACKAGE.parent).as_posix()
        words = (ast.get_docstring(node) or "").partition("\n\n")[0]  # type: ignore[arg-type]
        rows.append(f"| [{name}](#{where_anchor(path, name)}) | {cell(words)} | `{where}` |")
        entries.append(f"::: {where_anchor(path, name)}")
    return page([GENERATED, "# Python API", ABOUT, "\n".join(rows), "## Names", *entries])


def where_anchor(path: Path, name: str) -> str:
    """Return the dotted path of a name, under which the built page has it."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join([*(part for part in parts if part != "__init__"), name])

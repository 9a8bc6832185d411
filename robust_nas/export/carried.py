"""The text that makes the operations or activations of a network, for the plain-Python export.

Each is a `Layer`: a class or function in a file that needs torch alone. The export carries the file, and a table of the
names under which the network asks for them:

    OPERATIONS = {"sep_conv_3x3": Built(SeparableConv, kernel=3, dilation=1, repeats=2), ...}
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from robust_nas.errors import ConfigError
from robust_nas.operations import Activation, Operation
from robust_nas.registry import Registry

BUILT = '''\
class Built:
    """A class or function that makes a module, and its keyword arguments."""

    def __init__(self, make: Callable[..., nn.Module], **options: Any) -> None:
        self.make, self.options = make, options

    def build(self, *arguments: Any) -> nn.Module:
        """Return a new module."""
        return self.make(*arguments, **self.options)

'''


class Carried(NamedTuple):
    """The modules whose text is needed, the text of a plugin's own files, and the table (empty without names)."""

    modules: tuple[ModuleType, ...]
    plugins: tuple[str, ...]
    table: str


def carried(
    registry: Registry[Operation] | Registry[Activation], names: Iterable[str], table: str
) -> Carried:
    """Return what makes the methods of these names, as text. `table` is what the network calls the registry.

    Raises `ConfigError` for a method whose text cannot be carried.
    """
    modules: dict[ModuleType, None] = {}
    plugins: dict[str, None] = {}
    lines = []
    for name in sorted(set(names)):
        make, options = _maker(registry, name)
        module = sys.modules[make.__module__]
        if module.__name__.startswith("robust_nas."):
            modules[module] = None
        elif not module.__name__.startswith("torch."):
            plugins[_text(registry.kind, name, module)] = None
        known = "nn." if module.__name__.startswith("torch.nn") else ""
        arguments = "".join(f", {key}={value!r}" for key, value in options.items())
        lines.append(f"    {name!r}: Built({known}{make.__name__}{arguments}),\n")
    return Carried(tuple(modules), tuple(plugins), f"{table} = {{\n{''.join(lines)}}}\n" if lines else "")


def _maker(
    registry: Registry[Operation] | Registry[Activation], name: str
) -> tuple[Callable[..., object], dict[str, object]]:
    layer = registry.get(name).layer
    if layer is None:
        raise ConfigError(
            f"{registry.kind} {name!r}: builds its module by code of its own, which plain source cannot carry; "
            "let it have a `layer`, or export with --format onnx or --format program"
        )
    make = layer.resolve()
    if not make.__name__.isidentifier():
        raise ConfigError(
            f"{registry.kind} {name!r}: its layer is {make.__name__}, which plain source cannot name; "
            "a class or function at the top of its file can be"
        )
    return make, dict(layer.options)


def _text(kind: str, name: str, module: ModuleType) -> str:
    """Return the definitions of a plugin's file, without its imports of this package and its methods."""
    try:
        source = Path(inspect.getsourcefile(module) or "").read_text(encoding="utf-8")
    except (OSError, TypeError) as error:
        raise ConfigError(f"{kind} {name!r}: the text of {module.__name__} cannot be read: {error}") from None
    lines = source.splitlines()
    parts = [part for part in ast.parse(source).body if _is_needed(part, module)]
    return "\n\n\n".join("\n".join(lines[_start(part) - 1 : part.end_lineno]) for part in parts) + "\n"


def _start(part: ast.stmt) -> int:
    """Return the first line of a statement, its decorators included."""
    decorators: list[ast.expr] = getattr(part, "decorator_list", [])
    return min([part.lineno, *(decorator.lineno for decorator in decorators)])


def _is_needed(part: ast.stmt, module: ModuleType) -> bool:
    if isinstance(part, ast.Import):
        return True
    if isinstance(part, ast.ImportFrom):
        return part.module != "__future__" and not str(part.module).startswith("robust_nas")
    if isinstance(part, ast.ClassDef):
        found = getattr(module, part.name, None)
        return not (isinstance(found, type) and issubclass(found, (Operation, Activation)))
    return isinstance(part, (ast.FunctionDef, ast.Assign, ast.AnnAssign))

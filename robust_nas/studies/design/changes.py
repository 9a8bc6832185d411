"""Change single numbers of an architecture by their dotted keys, and read the values that a design tries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from robust_nas.config import Count, check, json_copy
from robust_nas.errors import ArchitectureError, StudyError
from robust_nas.spaces import Architecture
from robust_nas.spaces.layout import MAX_FILTERS
from robust_nas.spaces.naming import canonical_name
from robust_nas.studies.design.design import MAX_CONFIGURATIONS

_FIXED = ("schema_version", "type", "name")


def _expanded(value: object) -> object:
    """Return the integers that `{from: 2, to: 10, step: 2}` means, ends included; a single value is a list of one."""
    if isinstance(value, Mapping):
        if not {"from", "to"} <= set(value) <= {"from", "to", "step"}:
            raise ValueError("a range is written {from: 1, to: 8, step: 1}")
        first, last, step = value["from"], value["to"], value.get("step", 1)
        if not all(type(number) is int for number in (first, last, step)) or step < 1 or last < first:
            raise ValueError("a range needs integers with from <= to and step >= 1")
        if (last - first) // step >= MAX_CONFIGURATIONS:
            raise ValueError(f"a range has at most {MAX_CONFIGURATIONS} values")
        return tuple(range(first, last + 1, step))
    return value if isinstance(value, list | tuple | range) else (value,)


Values = Annotated[tuple[Any, ...], BeforeValidator(_expanded), Field(min_length=1)]
Integers = Annotated[
    tuple[Annotated[Count, Field(le=MAX_FILTERS)], ...], BeforeValidator(_expanded), Field(min_length=1)
]


def varied(base: Architecture, changes: Mapping[str, object], source: str) -> Architecture:
    """Return the base with each dotted key set, under its canonical name.

    Raises `StudyError` for a key that the base does not have, `ArchitectureError` for an impossible network.
    """
    tree = base.changeable(changes)
    where = f"{source}: {described(changes)}" if changes else source
    for key, value in changes.items():
        _set(tree, key, json_copy(value), where)
    architecture = check(type(base), tree, where, ArchitectureError)
    return architecture.model_copy(update={"name": canonical_name(architecture)})


def described(changes: Mapping[str, object]) -> str:
    """Return the changes as text: `widths.2 = 32, cells = 8`."""
    return ", ".join(f"{key} = {json.dumps(value, default=str)}" for key, value in changes.items())


def at(tree: Any, key: str, source: str) -> Any:
    """Return the value at a dotted key of a tree. Raises `StudyError`."""
    node = tree
    for part in key.split("."):
        node = node[_index(node, part, key, source)]
    return node


def _set(tree: dict[str, Any], key: str, value: object, source: str) -> None:
    """Put the value at a dotted key; an unknown last key of a mapping is left for the architecture's own check."""
    *path, last = key.split(".")
    if key in _FIXED:
        raise StudyError(f"{source}: {key!r} is no axis; allowed: {_allowed(tree)}")
    node: Any = tree
    for part in path:
        node = node[_index(node, part, key, source)]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_index(node, last, key, source)] = value


def _index(node: Any, part: str, key: str, source: str) -> Any:
    """Return the index or key of a container that `part` means."""
    if isinstance(node, list):
        if part in map(str, range(len(node))):
            return int(part)
        raise StudyError(
            f"{source}: key {key!r}: {part!r} is no index of a list of {len(node)}, which begins at 0"
        )
    if isinstance(node, dict) and part in node:
        return part
    allowed = _allowed(node) if isinstance(node, dict) else "none, it is a single value"
    raise StudyError(f"{source}: key {key!r}: there is no {part!r}; allowed: {allowed}")


def _allowed(tree: Mapping[str, object]) -> str:
    return ", ".join(key for key in tree if key not in _FIXED)

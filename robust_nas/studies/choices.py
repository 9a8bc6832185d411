"""One configuration of a study, and how a generator makes it from the base architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from robust_nas.config import Count, json_copy, to_dict
from robust_nas.config import check as check_options
from robust_nas.errors import ArchitectureError, StudyError
from robust_nas.spaces import Architecture
from robust_nas.spaces.layout import MAX_FILTERS
from robust_nas.spaces.naming import canonical_name
from robust_nas.spaces.residual import BLOCKS

MAX_CHOICES = 10_000  # of one generator; the largest published grid has 512
RECIPE = "training."  # keys of the training recipe begin with it, all others are the architecture's
_FIXED = ("schema_version", "type", "name")

InputShape = tuple[int, int, int]  # channels, height, width
Arm = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=60)
]  # groups choices; several join with +


class Choice(NamedTuple):
    """One configuration: its architecture, overrides of the training recipe (`weight_decay=0.001`), and its arm.

    `arm` is a `+`-joined list where the same configuration belongs to several arms.
    """

    architecture: Architecture
    recipe: tuple[str, ...] = ()
    arm: str = ""


def _expanded(value: object) -> object:
    """The integers that `{from: 2, to: 10, step: 2}` means, ends included; a single value is a list of one."""
    if isinstance(value, Mapping):
        if not {"from", "to"} <= set(value) <= {"from", "to", "step"}:
            raise ValueError("a range is written {from: 1, to: 8, step: 1}")
        first, last, step = value["from"], value["to"], value.get("step", 1)
        if not all(type(number) is int for number in (first, last, step)) or step < 1 or last < first:
            raise ValueError("a range needs integers with from <= to and step >= 1")
        if (last - first) // step >= MAX_CHOICES:
            raise ValueError(f"a range has at most {MAX_CHOICES} values")
        return tuple(range(first, last + 1, step))
    return value if isinstance(value, list | tuple | range) else (value,)


Values = Annotated[tuple[Any, ...], BeforeValidator(_expanded), Field(min_length=1)]
Integers = Annotated[
    tuple[Annotated[Count, Field(le=MAX_FILTERS)], ...], BeforeValidator(_expanded), Field(min_length=1)
]


def varied(base: Architecture, changes: Mapping[str, object], source: str) -> Architecture:
    """The base with each dotted key set, under its canonical name.

    Raises `StudyError` for a key that is no place of the base, `ArchitectureError` for a network that cannot be.
    """
    tree = to_dict(base)
    where = f"{source}: {described(changes)}" if changes else source
    if "block" in changes:  # the numbers of the base's block are not those of another one
        tree = {key: value for key, value in tree.items() if key not in BLOCKS["robust-res"]}
    for key, value in changes.items():
        _set(tree, key, json_copy(value), where)
    architecture = check_options(type(base), tree, where, ArchitectureError)
    return architecture.model_copy(update={"name": canonical_name(architecture)})


def described(changes: Mapping[str, object]) -> str:
    """`widths.2 = 32, cells = 8`."""
    return ", ".join(f"{key} = {json.dumps(value, default=str)}" for key, value in changes.items())


def at(tree: Any, key: str, source: str) -> Any:
    """What stands at a dotted key of a tree. Raises `StudyError`."""
    node = tree
    for part in key.split("."):
        node = node[_index(node, part, key, source)]
    return node


def _set(tree: dict[str, Any], key: str, value: object, source: str) -> None:
    """Puts the value at a dotted key; an unknown last key of a mapping is left for the architecture's own check."""
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
    """The index or key of a container that `part` means."""
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

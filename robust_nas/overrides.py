"""Overrides `a.b=c` of a config's tree: what one means, and applying it.

The value is read as YAML. Where a field takes text, the value is the override's own text, so that `name=2024` and
`data.path=set #2` are what they say; only quotes around the whole of it are taken away, and `null` stays null where
the field takes that too. What YAML would drop as a comment is never dropped.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from pydantic_core import ErrorDetails

from robust_nas.errors import ConfigError
from robust_nas.yaml_reader import MAX_DEPTH, MAX_YAML_BYTES, has_comment, parse_yaml

MAX_SHOWN = 80  # characters of an offending value


class Verbatim(str):
    """An override `a.b=text` whose text is the value, whatever YAML would read in it: an option of the command line."""

    __slots__ = ()


def override_value(override: str) -> Any:
    """Return the value of an override `a.b=c`, read as YAML; the text itself where that is no YAML or has a comment."""
    text = override.partition("=")[2]
    if isinstance(override, Verbatim):
        return str(text)
    if len(text) > MAX_YAML_BYTES or not (text := text.strip()):
        return parse_yaml(text, shown(override))
    try:
        value = parse_yaml(text, shown(override))
    except ConfigError:
        return text
    plain = isinstance(value, str) and text[0] not in "'\"|>!"
    return text if plain or has_comment(text) else value


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A new tree with each `a.b=c` applied; values are read as YAML, list items are named by index.

    `check`, which is given the overrides too, takes the text of one that sets a field of text, such as `name=2024`.
    Raises `ConfigError` for an override without `=` and for an index that is not in the list.
    """
    result: dict[str, Any] = json_copy(tree)
    for override in overrides:
        path, equals, _ = override.partition("=")
        where, keys = f"override {shown(override)}", path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"{where}: write it as key.subkey=value, such as search.epochs=3")
        if len(keys) > MAX_DEPTH:
            raise ConfigError(f"{where}: {len(keys)} keys; at most {MAX_DEPTH} are taken")
        value = override_value(override)
        node: Any = result
        for position, key in enumerate(keys):
            last = position == len(keys) - 1
            if isinstance(node, list):
                if key not in map(str, range(len(node))):
                    raise ConfigError(f"{where}: {shown(key)} is no index of a list of {len(node)}")
                index: Any = int(key)
            else:
                index = key
                if not last and not isinstance(inner := node.get(key), dict | list):
                    node[key] = {"name": inner} if isinstance(inner, str) else {}  # a method without options
            if last:
                node[index] = value
            else:
                node = node[index]
                if not isinstance(node, dict | list):
                    raise ConfigError(f"{where}: {'.'.join(keys[: position + 1])[:MAX_SHOWN]} has no keys")
    return result


def with_texts(tree: object, problems: Sequence[ErrorDetails], overrides: Sequence[str]) -> object | None:
    """Return the tree with the text of an override where a field of text refused its value; None: there is none."""
    texts = None
    for problem in problems:
        keys = [part for part in problem["loc"] if not is_branch(part)]
        text = _text_at(keys, overrides) if problem["type"] == "string_type" else None
        if text is not None:
            texts = json_copy(tree) if texts is None else texts
            *path, last = keys
            with contextlib.suppress(LookupError, TypeError):  # a place that a validator made
                reduce(operator.getitem, path, texts)[last] = text
    return None if texts == tree else texts


def _text_at(keys: Sequence[str | int], overrides: Sequence[str]) -> str | None:
    """Return the text of the scalar that an override put at a place of the tree."""
    for override in reversed(overrides):
        path, _, text = override.partition("=")
        depth = path.count(".") + 1
        if ".".join(map(str, keys[:depth])) == path.strip():
            with contextlib.suppress(ConfigError, LookupError, TypeError):
                inner = parse_yaml(text, "", as_text=True) if keys[depth:] else text.strip()
                found = reduce(operator.getitem, keys[depth:], inner)
                return found if isinstance(found, str) else None
    return None


def json_copy(tree: Any) -> Any:
    """A deep copy of plain dicts and lists (tuples become lists)."""
    if isinstance(tree, Mapping):
        return {key: json_copy(value) for key, value in tree.items()}
    return [json_copy(value) for value in tree] if isinstance(tree, list | tuple) else tree


def shown(value: object) -> str:
    """Return a value as a message shows it, at most `MAX_SHOWN` characters."""
    try:
        text = repr(str(value) if isinstance(value, Verbatim) else value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        text = "an integer of thousands of digits"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def is_branch(part: int | str) -> bool:
    """Return whether a part of an error's place is pydantic's own name for a branch of a union."""
    names = ("function-before", "function-after", "function-plain", "nullable", "str", "int", "float")
    return isinstance(part, str) and (part in names or "[" in part)

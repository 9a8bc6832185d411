"""Change a choice in a config's tree: another method keeps the options that it has too, and whose values it accepts.

    merged(RunConfig, {"training": {"loss": {"name": "mart", "beta": 5}}}, {"training": {"loss": {"name": "trades"}}})

keeps `beta`. What the new method does not have, or has with other values, is left out, so that its own default holds;
but what was written next to the new name stays, and a wrong key there is an error. So does a key that neither of the
two methods has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from robust_nas.config import apply_overrides, is_branch, json_copy
from robust_nas.errors import ConfigError
from robust_nas.overrides import override_value
from robust_nas.registry import MethodField

Place = type[BaseModel] | MethodField  # what a mapping in a config is read by


def changed(model: type[BaseModel], tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a config's tree with `a.b=c` overrides; one that names another method keeps what fits.

    Raises `ConfigError` as `apply_overrides` does.
    """
    result = json_copy(tree)
    for override in overrides:
        *path, last = override.partition("=")[0].strip().split(".")
        with contextlib.suppress(ConfigError):  # `apply_overrides` says what is wrong with it
            _choose(model, result, path, last, override_value(override))
    return apply_overrides(result, overrides)


def merged(model: type[BaseModel], base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top: mappings are merged key by key, everything else is replaced."""
    return _merged(model, json_copy(base), changes)


def _merged(place: Place | None, base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(place, MethodField):
        name = changes.get(place.registry.key)
        if isinstance(name, str):
            base = _kept(place, base, name)
    own = _read_by(place, {**base, **changes})
    result = dict(base)
    for key, value in changes.items():
        old, inner = result.get(key), _inside(own, key)
        if isinstance(inner, MethodField) and isinstance(value, str) and isinstance(old, dict):
            value = {inner.registry.key: value}  # a method without options
        both = isinstance(old, dict) and isinstance(value, Mapping)
        result[key] = _merged(inner, old, value) if both else json_copy(value)
    return result


def _choose(model: type[BaseModel], tree: Any, path: Sequence[str], last: str, name: object) -> None:
    """Leave out the options at a place of the tree that the method of this name does not take; `last` is its key."""
    place: Place | None = model
    node = tree
    holder: tuple[Any, Any] | None = None
    for key in path:
        item = key.isdecimal() and isinstance(node, list)
        if not item:
            place = _inside(_read_by(place, node), key)
        index: Any = int(key) if item else key
        if (
            not isinstance(node, dict | list)
            or (item and index >= len(node))
            or (not item and key not in node)
        ):
            return
        holder, node = (node, index), node[index]
    if isinstance(place, MethodField) and last == place.registry.key and isinstance(name, str) and holder:
        if isinstance(node, dict):
            holder[0][holder[1]] = {**_kept(place, node, name), last: name}
        elif isinstance(node, str):
            holder[0][holder[1]] = {last: name}


def _read_by(place: Place | None, node: object) -> type[BaseModel] | None:
    """Return the options that read a mapping at a place."""
    if not isinstance(place, MethodField):
        return place
    name = node.get(place.registry.key, place.default) if isinstance(node, Mapping) else None
    try:
        return place.registry.get(name) if isinstance(name, str) else None
    except ConfigError:
        return None


def _inside(model: type[BaseModel] | None, key: str) -> Place | None:
    """Return what reads a mapping, or the mappings of a list, under a key of options."""
    field = None if model is None else model.model_fields.get(key)
    return None if field is None else place_of(field)


def place_of(field: FieldInfo) -> Place | None:
    """Return what reads a mapping, or the mappings of a list, in this field; None: nothing of ours."""
    return _place(field.annotation, field.metadata)


def _place(annotation: Any, metadata: Sequence[Any] = ()) -> Place | None:
    for mark in metadata:
        if isinstance(mark, MethodField):
            return mark
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _place(arguments[0], arguments[1:])
    if origin in (Union, UnionType, tuple, list):
        return next(filter(None, map(_place, arguments)), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _kept(place: MethodField, node: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the method of this name takes of the options of another one; all of them where it is the same."""
    key = place.registry.key
    before = _read_by(place, node)
    after = _read_by(place, {key: name})
    if before is None or after is None or before is after:
        return node
    unknown = {option: node[option] for option in node if option not in before.model_fields}
    known = {
        option: node[option] for option in node if option in after.model_fields and option not in unknown
    }
    return {**_accepted(after, {**known, key: after.model_fields[key].default}), **unknown}


def _accepted(model: type[BaseModel], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that the model refuses; of a list with a wrong entry nothing is left."""
    accepted = json_copy(options)
    while True:
        try:
            model.model_validate(accepted)
        except ValidationError as error:
            problems = [
                problem for problem in error.errors(include_url=False) if problem["type"] != "missing"
            ]
        except ConfigError:  # what this says is said where the whole config is checked
            return accepted
        else:
            return accepted
        if not sum(_removed(accepted, problem["loc"]) for problem in problems):
            return accepted


def _removed(tree: dict[str, Any], place: tuple[int | str, ...]) -> bool:
    """Remove what is at a place, or the list that holds it; return whether something was there."""
    keys: list[str] = []
    for part in place:
        if isinstance(part, int):
            break
        if not is_branch(part):
            keys.append(part)
    node: Any = tree
    for key in keys[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    if not keys or not isinstance(node, dict) or keys[-1] not in node:
        return False
    del node[keys[-1]]
    return True

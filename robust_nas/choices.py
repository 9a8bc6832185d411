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

from robust_nas.config import UNKNOWN_KEY, apply_overrides, json_copy
from robust_nas.errors import ConfigError
from robust_nas.overrides import is_branch, override_value
from robust_nas.registry import MethodField

Keys = tuple[str, ...]
Place = type[BaseModel] | MethodField  # what a mapping in a config is read by


def changed(model: type[BaseModel], tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a config's tree with `a.b=c` overrides; one that names another method keeps what fits.

    Raises `ConfigError` as `apply_overrides` does.
    """
    result: dict[str, Any] = json_copy(tree)
    places = []
    for override in overrides:
        *path, last = override.partition("=")[0].strip().split(".")
        with contextlib.suppress(ConfigError):  # `apply_overrides` says what is wrong with it
            if _choose(model, result, path, last, override_value(override)):
                places.append(tuple(path))
    given = [tuple(override.partition("=")[0].strip().split(".")) for override in overrides]
    result = apply_overrides(result, overrides)
    return _without_refused(model, result, places, given) if places else result


def merged(model: type[BaseModel], base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top: mappings are merged key by key, everything else is replaced."""
    places: list[Keys] = []
    given: list[Keys] = []
    result = _merged(model, json_copy(base), changes, (), places, given)
    return _without_refused(model, result, places, given) if places else result


def _merged(
    place: Place | None,
    base: dict[str, Any],
    changes: Mapping[str, Any],
    path: Keys,
    places: list[Keys],
    given: list[Keys],
) -> dict[str, Any]:
    """Return the same at a path; `places` gets the paths at which another method is named, `given` those of changes."""
    if isinstance(place, MethodField):
        name = changes.get(place.registry.key)
        if isinstance(name, str) and (kept := _known_to(place, base, name)) is not None:
            base = kept
            places.append(path)
    own = _read_by(place, {**base, **changes})
    result = dict(base)
    for key, value in changes.items():
        old, inner = result.get(key), _inside(own, key)
        if isinstance(inner, MethodField) and isinstance(value, str) and isinstance(old, dict):
            value = {inner.registry.key: value}  # a method without options
        deeper = (*path, str(key))
        if isinstance(old, dict) and isinstance(value, Mapping):
            result[key] = _merged(inner, old, value, deeper, places, given)
        else:
            result[key] = json_copy(value)
            given.append(deeper)
    return result


def _choose(model: type[BaseModel], tree: Any, path: Sequence[str], last: str, name: object) -> bool:
    """Leave out what the method of this name does not know at a place of the tree; return whether it is another one."""
    place: Place | None = model
    node, holder, index = tree, None, ""
    for key in path:
        if not isinstance(node, list):
            place = _inside(_read_by(place, node), key)
        holder, node, index = node, _at(node, key), key
    if not isinstance(place, MethodField) or last != place.registry.key or not isinstance(name, str):
        return False
    if isinstance(node, str) and isinstance(holder, dict):  # a method without options
        node = holder[index] = {last: node}
    kept = _known_to(place, node, name) if isinstance(node, dict) else None
    if kept is not None:
        node.clear()
        node.update({**kept, last: name})
    return kept is not None


def _at(node: object, key: str) -> Any:
    """Return the entry of a mapping or a list, None where there is none."""
    if isinstance(node, Mapping):
        return node.get(key)
    return node[int(key)] if isinstance(node, list) and key in map(str, range(len(node))) else None


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
        found = (_place(each) for each in arguments)
        return next((each for each in found if each is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _known_to(place: MethodField, node: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the options of one method that the method of this name has too, and those that neither has.

    None: it is the same method, or one of the two is not known.
    """
    before, after = (_read_by(place, each) for each in (node, {place.registry.key: name}))
    if before is None or after is None or before is after:
        return None
    lost = before.model_fields.keys() - after.model_fields.keys()
    return {key: value for key, value in node.items() if key not in lost and key != place.registry.key}


def _without_refused(
    model: type[BaseModel], tree: dict[str, Any], places: Sequence[Keys], given: Sequence[Keys]
) -> dict[str, Any]:
    """Return the tree without the values at `places` that their new methods refuse, but for those that were given.

    Of a list with a wrong entry, nothing is left. Where a method refuses its options together, one of them is removed
    if that helps, methods within it first; else all of them.
    """
    result: dict[str, Any] = json_copy(tree)
    while found := [keys for keys in _problems(model, result, places) if not _is_given(keys, given)]:
        inner = [keys for keys in found if keys not in places]
        if not inner:
            options = _options(result, found[0], given)
            helps = (
                keys for keys in options if found[0] not in _problems(model, _without(result, [keys]), places)
            )
            one = next(helps, None)
            inner = options if one is None else [one]
        before, result = result, _without(result, inner)
        if result == before:
            break
    return result


def _problems(model: type[BaseModel], tree: Mapping[str, Any], places: Sequence[Keys]) -> list[Keys]:
    """Return the keys at and below `places` that are refused; a place itself where its options are, together."""
    try:
        model.model_validate(tree)
    except ValidationError as error:
        found = []
        for problem in error.errors(include_url=False):
            keys, kind = _keys(problem["loc"], places), problem["type"]
            neither = kind == UNKNOWN_KEY and keys[:-1] in places  # which of the two methods has
            if kind != "missing" and not neither and any(keys[: len(place)] == place for place in places):
                found.append(keys)
        return found
    except (ConfigError, RecursionError):  # what is wrong is said where the whole config is checked
        pass
    return []


def _keys(loc: Sequence[int | str], places: Sequence[Keys]) -> Keys:
    """Return the place of a problem as keys, up to the first list that is not on the way to one of the places."""
    keys: Keys = ()
    for part in loc:
        if is_branch(part):
            continue
        if isinstance(part, int) and not any(
            place[: len(keys) + 1] == (*keys, str(part)) for place in places
        ):
            break
        keys = (*keys, str(part))
    return keys


def _options(tree: object, place: Keys, given: Sequence[Keys]) -> list[Keys]:
    """Return the options of a method that were not given, those that hold mappings first."""
    for key in place:
        tree = _at(tree, key)
    options = tree if isinstance(tree, Mapping) else {}
    free = [key for key in options if not _is_given((*place, key), given)]
    return [(*place, key) for key in sorted(free, key=lambda key: not isinstance(options[key], Mapping))]


def _is_given(keys: Keys, given: Sequence[Keys]) -> bool:
    """Return whether the user wrote what is at these keys, or what holds it."""
    return any(keys[: len(each)] == each for each in given)


def _without(tree: Mapping[str, Any], removed: Sequence[Keys]) -> dict[str, Any]:
    """Return a tree without what is at these keys."""
    result: dict[str, Any] = json_copy(tree)
    for *path, last in removed:
        node: Any = result
        for key in path:
            node = _at(node, key)
        if isinstance(node, dict):
            node.pop(last, None)
    return result

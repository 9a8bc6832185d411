"""JSON records: read strictly, held against their shape, and against the digest that their run ended with.

A shape is what a reader relies on, as a template of the tree:

    str, int, float, bool, object    a value of this type; a float is finite, an int is no bool; object is anything
    {"key": shape, "key?": shape}    an object; a key with ? may be missing; further keys are allowed
    {str: shape}                     an object with any keys
    [shape], [shape, ...], [a, b]    a list of any length, of at least one item, of exactly these
    (a, b), frozenset, None          one of these shapes, one of these values, null

NaN and infinite numbers are damage: no file of ours holds them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from robust_nas.errors import RunError

RESULT, ENVIRONMENT = "result.json", "environment.json"
Shape: TypeAlias = Any
ANY_OBJECT: Shape = {str: object}
DIGESTS: Shape = {"digests?": {str: str}}  # of `result.json`: the SHA-256 of the run's JSON files
DESCRIBED: Shape = {  # of `environment.json`
    "user_code?": {str: str},
    "dataset?": str,
    "dataset_checksum?": str,
    "engine?": str,
}
NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


def read_json(path: Path, shape: Shape = ANY_OBJECT) -> dict[str, Any]:
    """Return the object of a JSON file. Raise `RunError` where it is missing, damaged, or not of this shape."""
    return _checked(path, _bytes(path), shape)


def read_lines(path: Path, shape: Shape = ANY_OBJECT) -> list[dict[str, Any]]:
    """Return every line of a file of JSON lines, each of this shape; none without the file. Raise `RunError`."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    try:
        found = [parse_json(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    if problem := misfit(found, [shape]):
        raise RunError(f"{path}: damaged: line {problem}")
    return found


def read_record(folder: Path, name: str, shape: Shape) -> dict[str, Any]:
    """Return a JSON record of a finished run, as the run wrote it.

    Raise `RunError` where it is missing or damaged, and where its SHA-256 is not the one in `result.json` (runs of
    earlier versions hold none: the shape alone is checked).
    """
    path, data = folder / name, _bytes(folder / name)
    known = read_json(folder / RESULT, DIGESTS).get("digests", {}).get(name)
    if known not in (None, hashlib.sha256(data).hexdigest()):
        raise RunError(
            f"{path}: was changed after its run ended: its SHA-256 is not the one in {RESULT}; put the file back, or "
            "run again with --overwrite"
        )
    return _checked(path, data, shape)


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of `environment.json` in a run folder, empty without one. Errors as `read_json`."""
    path = folder / ENVIRONMENT
    return read_json(path, DESCRIBED) if path.is_file() else {}


def file_digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the JSON files among `names` that lie in this folder itself."""
    own = [name for name in names if Path(name).name == name and name.endswith(".json")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in own}


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raise `ValueError` for NaN and infinity too, `RecursionError` for a deep one."""
    return json.loads(data, parse_constant=_refuse_constant)


def misfit(value: object, shape: Shape, place: str = "") -> str | None:
    """Return where and why a value is not of a shape, or None."""
    if isinstance(shape, tuple):
        problems = [misfit(value, one, place) for one in shape]
        return None if None in problems else problems[0]
    if isinstance(shape, dict):
        return _misfit_object(value, shape, place)
    if isinstance(shape, list):
        return _misfit_list(value, shape, place)
    if isinstance(shape, frozenset):
        known = isinstance(value, str) and value in shape
        return None if known else _wrong(value, f"one of {', '.join(sorted(shape))}", place)
    if shape is None or shape is object:
        return None if shape is object or value is None else _wrong(value, "null", place)
    kinds = (int, float) if shape is float else shape
    fits = isinstance(value, kinds) and (shape is bool or not isinstance(value, bool))
    if fits and isinstance(value, float):
        fits = math.isfinite(value)
    return None if fits else _wrong(value, NAMES[shape], place)


def _misfit_object(value: object, shape: Mapping[Any, Shape], place: str) -> str | None:
    if not isinstance(value, dict):
        return _wrong(value, "a JSON object", place)
    inner = f"{place}." if place else ""
    if str in shape:
        problems = (misfit(each, shape[str], f"{inner}{key}") for key, each in value.items())
        return next((problem for problem in problems if problem), None)
    for key, each in shape.items():
        name = key.removesuffix("?")
        if name not in value:
            if name == key:
                return f"{inner}{name} is missing"
        elif problem := misfit(value[name], each, f"{inner}{name}"):
            return problem
    return None


def _misfit_list(value: object, shape: list[Shape], place: str) -> str | None:
    if not isinstance(value, list):
        return _wrong(value, "a list", place)
    any_length = len(shape) == 1 or shape[1] is ...
    if (not any_length and len(value) != len(shape)) or (any_length and len(value) < len(shape) - 1):
        return f"{place} has {len(value)} items, {'at least one is' if any_length else f'{len(shape)} are'} needed"
    shapes = [shape[0]] * len(value) if any_length else shape
    problems = (
        misfit(each, one, f"{place}.{number}")
        for number, (each, one) in enumerate(zip(value, shapes, strict=True))
    )
    return next((problem for problem in problems if problem), None)


def _wrong(value: object, needed: str, place: str) -> str:
    return f"{place + ': ' if place else ''}got {repr(value)[:200]}; {needed} is needed"


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


def _checked(path: Path, data: bytes, shape: Shape) -> dict[str, Any]:
    try:
        tree = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path}: a JSON object is needed")
    if problem := misfit(tree, shape):
        raise RunError(f"{path}: is damaged: {problem}")
    return tree

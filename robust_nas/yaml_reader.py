"""Read YAML as plain values: mappings with text keys, lists, text, decimal numbers, `true`, `false`, `null`.

YAML 1.1 reads `010` as 8, `1:30` as 90, `yes` as true and `2024-01-01` as a date. Here each of them, and `0x1F`, `0b1`,
`1_000` and `~`, is its own text; a field that needs a number or a boolean then reads that text, or refuses it.
Anchors, aliases, tags, keys written twice and deep nesting are refused: by them a small file fills memory or stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import yaml

from robust_nas.errors import ConfigError

MAX_YAML_BYTES = 4_000_000
MAX_VALUES = 200_000  # keys, scalars, and ends of mappings and lists
MAX_DEPTH = 100  # mappings and lists within each other, and keys of an override
_MAX_DIGITS = 300
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# All of these are numbers in YAML 1.1 as well, so what `to_yaml` writes without quotes is read back as text.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


def parse_yaml(text: str, source: str, *, as_text: bool = False) -> Any:
    """Return the value of a YAML text; with `as_text` every scalar is its text. `source` names it in errors.

    Raises `ConfigError`.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters; a YAML file here has at most {MAX_YAML_BYTES}")
    try:
        events = _bounded(yaml.parse(text, Loader=_Parser))
        next(events)  # the start of the stream
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _value(next(events), events, 0, as_text)
        next(events)  # the end of the document
        if not isinstance(following := next(events), yaml.StreamEndEvent):
            raise _refused("one document is needed, and here begins another", following)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    return value


def has_comment(text: str) -> bool:
    """Return whether YAML would drop a part of a valid text as a comment."""
    if "#" not in text:
        return False
    tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    return any(
        "#" in text[first.end_mark.index : second.start_mark.index] for first, second in pairwise(tokens)
    )


def _bounded(events: Iterator[Any]) -> Iterator[Any]:
    for number, event in enumerate(events):
        if number > MAX_VALUES:
            raise _refused(f"more than {MAX_VALUES} keys and values", event)
        yield event


def _value(event: Any, events: Iterator[Any], depth: int, as_text: bool) -> Any:
    """Return the value that begins with an event."""
    if event.anchor is not None:
        raise _refused("anchors and aliases (&name, *name) are not taken here", event)
    if event.tag is not None:
        raise _refused(f"tags ({event.tag[:80]}) are not taken here", event)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event) if event.implicit[0] and not as_text else event.value
    if depth == MAX_DEPTH:
        raise _refused(f"nested deeper than {MAX_DEPTH} levels", event)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_value(event, events, depth + 1, as_text))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        if isinstance(key, yaml.AliasEvent):
            raise _refused("anchors and aliases (&name, *name) are not taken here", key)
        if not isinstance(key, yaml.ScalarEvent):
            raise _refused("a key must be a plain word", key)
        if key.value in mapping:
            raise _refused(f"key {key.value[:80]!r} is written twice", key)
        mapping[key.value] = _value(next(events), events, depth + 1, as_text)
    return mapping


def _scalar(event: Any) -> Any:
    text = event.value
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise _refused(f"an integer of {len(text)} digits; at most {_MAX_DIGITS} are taken", event)
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _refused(reason: str, event: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=event.start_mark)

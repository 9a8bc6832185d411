"""JSON schema of options, for editors: types, bounds, the names of methods with their own keys, descriptions.

It is made from the fields that check a config, with the methods of plugins that are installed. Nothing in it is
required: a file may leave out what a base, a threat model or a default gives. What several keys must fulfil together is
not in it either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from robust_nas.config import Options, parse_number
from robust_nas.descriptions import description
from robust_nas.errors import ConfigError
from robust_nas.registry import MethodField

DRAFT = "https://json-schema.org/draft/2020-12/schema"
CODE = r"\.py:[A-Za-z_][A-Za-z0-9_]*$"  # file.py:Class
FRACTION = r"^\s*[-+]?[0-9.]+([eE][-+]?[0-9]+)?(/[0-9.]+([eE][-+]?[0-9]+)?)?\s*$"  # 8/255, 1e-3
SWITCHES = ["yes", "no", "on", "off"]  # that a file may have for a boolean
BOUNDS: dict[type, tuple[str, str]] = {
    Ge: ("minimum", "ge"),
    Gt: ("exclusiveMinimum", "gt"),
    Le: ("maximum", "le"),
    Lt: ("exclusiveMaximum", "lt"),
}

Schema = dict[str, Any]


def json_schema(model: type[Options], title: str, **types: Any) -> Schema:
    """Return the JSON schema of a file with the keys of `model`; `types` are those of keys that it leaves open."""
    definitions = Definitions()
    whole = definitions.of_model(model)
    for key, kind in types.items():
        whole["properties"][key] = {**whole["properties"][key], **definitions.of(kind)}
    return {"$schema": DRAFT, "title": title, **whole, "$defs": definitions.found}


class Definitions:
    """The schemas of options by name, each made once: `$defs`."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self.names: dict[type[BaseModel], str] = {}

    def of_model(self, model: type[BaseModel]) -> Schema:
        """Return the schema of a mapping whose keys are those of a model."""
        properties = {
            key: _described(self.of(field.annotation, field.metadata), description(model, key))
            for key, field in model.model_fields.items()
        }
        if issubclass(model, Options):
            for key, kind in model.short_forms().items():
                given = [mark.description for mark in get_args(kind) if isinstance(mark, FieldInfo)]
                words = description(model, key) if key in model.model_fields else "".join(filter(None, given))
                properties[key] = _described(self.of(kind), words)
        whole = {"type": "object", "properties": properties, "additionalProperties": False}
        return _described(whole, (model.__doc__ or "").strip().partition("\n")[0])

    def reference(self, model: type[BaseModel]) -> Schema:
        """Return a reference to the schema of a model."""
        if model not in self.names:
            taken = self.names.values()
            name = model.__name__ if model.__name__ not in taken else f"{model.__module__}.{model.__name__}"
            self.names[model] = name
            self.found[name] = {}  # a model may hold itself
            self.found[name] = self.of_model(model)
        return {"$ref": f"#/$defs/{self.names[model]}"}

    def of(self, annotation: Any, metadata: Sequence[Any] = ()) -> Schema:
        """Return the schema of what a type takes."""
        marks = [*_flat(metadata)]
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.of(arguments[0], (*arguments[1:], *metadata))
        if method := next((mark for mark in marks if isinstance(mark, MethodField)), None):
            return self.of_method(method)
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(each, metadata) for each in arguments]}
        before = [mark.func for mark in marks if isinstance(mark, BeforeValidator)]
        if any(getattr(each, "__module__", "") != parse_number.__module__ for each in before):
            return {}  # texts and short forms that its own reader knows
        if origin in (tuple, list):
            return self.of_list(arguments, marks)
        if origin is dict:
            return {
                "type": "object",
                "additionalProperties": self.of(arguments[1]),
                **_sizes(marks, "Properties"),
            }
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self.reference(annotation)
        return _plain(annotation, marks, fraction=parse_number in before)

    def of_list(self, items: Sequence[Any], marks: Sequence[Any]) -> Schema:
        """Return the schema of a list of one type, or of some that follow each other."""
        if len(items) == 1 or items[1:] == (...,):
            return {"type": "array", "items": self.of(items[0]), **_sizes(marks, "Items")}
        each = [self.of(item) for item in items]
        return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}

    def of_method(self, field: MethodField) -> Schema:
        """Return the schema of a method: a name, or a mapping with the keys of the method that it names."""
        key = field.registry.key
        names = [name for name in field.names() if self._can_be_read(field, name)]
        name: Schema = {"type": "string", "anyOf": [{"enum": names}, {"pattern": CODE}]}
        cases = []
        for each in names:
            named: Schema = {"properties": {key: {"const": each}}}
            if each != field.default:
                named["required"] = [key]
            cases.append({"if": named, "then": self.reference(field.registry.get(each))})
        mapping = {"type": "object", "properties": {key: name}, "allOf": cases}
        return {"if": {"type": "string"}, "then": name, "else": mapping}

    def _can_be_read(self, field: MethodField, name: str) -> bool:
        try:
            return bool(field.registry.get(name))
        except ConfigError:  # a broken plugin
            return False


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _flat(mark.metadata)
        else:
            yield mark


def _described(schema: Schema, words: str) -> Schema:
    return {**schema, "description": words} if words else schema


def _sizes(marks: Iterable[Any], of: str) -> Schema:
    """Return the bounds of a length, such as `minItems`."""
    found: Schema = {}
    for mark in marks:
        if isinstance(mark, MinLen):
            found[f"min{of}"] = mark.min_length
        elif isinstance(mark, MaxLen):
            found[f"max{of}"] = mark.max_length
    return found


def _bounds(marks: Iterable[Any]) -> Schema:
    return {
        word: getattr(mark, attribute)
        for mark in marks
        for kind, (word, attribute) in BOUNDS.items()
        if isinstance(mark, kind)
    }


def _plain(annotation: Any, marks: Sequence[Any], *, fraction: bool) -> Schema:
    """Return the schema of a number, a text, a choice or nothing; an empty one for any other type."""
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    if annotation in (None, NoneType):
        return {"type": "null"}
    if annotation is bool:
        return {"anyOf": [{"type": "boolean"}, {"enum": SWITCHES}]}
    if annotation is int:
        return {"type": "integer", **_bounds(marks)}
    if annotation is float:
        number = {"type": "number", **_bounds(marks)}
        return {"anyOf": [number, {"type": "string", "pattern": FRACTION}]} if fraction else number
    if annotation is str:
        patterns = [mark.pattern for mark in marks if getattr(mark, "pattern", None)]
        return {"type": "string", **({"pattern": patterns[0]} if patterns else {}), **_sizes(marks, "Length")}
    return _plain(annotation.__bound__, marks, fraction=fraction) if isinstance(annotation, TypeVar) else {}

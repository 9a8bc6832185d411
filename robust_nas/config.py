"""Options and YAML: loading, overriding, checking, printing. Knows no field words.

Options are frozen pydantic models that refuse unknown keys. Errors name the key, the value, where it was written and
what is allowed, all problems at once; nothing here imports torch, so a mistake is answered at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
)

from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _PydanticMeta
else:
    _PydanticMeta = type(BaseModel)  # pydantic does not export its metaclass by name

Model = TypeVar("Model", bound=BaseModel)
MAX_YAML_BYTES = 4_000_000


class _OptionsMeta(_PydanticMeta):
    """Turns pydantic's error into ours where a value is constructed in Python."""

    def __call__(cls, **values: Any) -> Any:  # noqa: N805 - a metaclass
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, typing.cast(type[BaseModel], cls), cls.__name__)) from None


class Options(BaseModel, metaclass=_OptionsMeta):
    """Base of every option value: frozen, keyword-only, refuses unknown keys, prints itself completely."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def __str__(self) -> str:
        return repr(self)


def parse_number(value: object) -> object:
    """The float that `8/255`, `1e-3` or a plain number means; other values are left for pydantic to refuse."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, such as 0.1 or 8/255")
    if isinstance(value, str):
        numerator, slash, denominator = value.partition("/")
        try:
            return float(numerator) / float(denominator) if slash else float(numerator)
        except (ValueError, ZeroDivisionError):
            raise ValueError("a number is needed, such as 0.1 or 8/255") from None
    return value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("an integer is needed")
    return value


def _serialise_number(value: float, info: SerializationInfo) -> str | float:
    return print_number(value) if info.context == "yaml" else value


def print_number(value: float) -> str | float:
    """`8/255` where the value is exactly a multiple of 1/255 that has no short decimal form, else the number."""
    levels = round(value * 255) if 0 < value < 1 else 0
    return f"{levels}/255" if levels and len(repr(value)) > 8 and levels / 255 == value else value


Number = Annotated[
    float, BeforeValidator(parse_number), PlainSerializer(_serialise_number, when_used="unless-none")
]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction01 = Annotated[Number, Field(ge=0, lt=1)]
Integer = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[Integer, Field(ge=1)]
CountOrZero = Annotated[Integer, Field(ge=0)]


class _Loader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key written twice, which YAML would silently take the last of, and aliases.

    A few aliases of aliases stand for billions of values; the first copy of such a tree would fill the memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # not in the stubs
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is written twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text. `source` names it in errors. Raises `ConfigError`."""
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters; a YAML file here has at most {MAX_YAML_BYTES}")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def existing_file(name_or_path: str | Path) -> Path | None:
    """The file of that path, `~` expanded; None where there is none, or where no file can be."""
    try:
        path = Path(name_or_path).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, not readable, no such user, a zero byte
        return None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises `ConfigError` when it cannot be read or is no mapping."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: is too large; a YAML file here has at most {MAX_YAML_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of keys to values is needed, got {type(tree).__name__}")
    return tree


class _Dumper(yaml.SafeDumper):
    """`SafeDumper` that writes short lists (and lists of them) on one line, deeper ones as blocks."""


def _depth(value: object) -> int:
    if isinstance(value, Mapping):
        return 9
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _represent_sequence(dumper: yaml.SafeDumper, values: Sequence[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=_depth(values) <= 2)


_Dumper.add_representer(list, _represent_sequence)


def to_tree(value: BaseModel) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings of an option value, in the order of its fields, as JSON has them."""
    return value.model_dump(mode="json")


def to_yaml_tree(value: BaseModel) -> dict[str, Any]:
    """The same as a YAML file has it: with numbers such as `8/255`."""
    return value.model_dump(mode="json", context="yaml")


def to_yaml(tree: BaseModel | Mapping[str, Any]) -> str:
    """YAML text of an option value or a plain tree; reading it back gives an equal value."""
    plain = to_yaml_tree(tree) if isinstance(tree, BaseModel) else tree
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def config_hash(value: BaseModel) -> str:
    """First 16 hex digits of the SHA-256 of the value's canonical JSON."""
    text = json.dumps(to_tree(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A new tree: `base` with `changes` on top, mappings merged key by key, everything else replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A new tree with each `a.b=c` applied; values are read as YAML, list items are named by index.

    Raises `ConfigError` for an override without `=` and for an index that is not in the list.
    """
    result: dict[str, Any] = json_copy(tree)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"override {override!r}: write it as key.subkey=value, such as search.epochs=3")
        value = parse_yaml(text, f"override {override!r}") if text.strip() else None
        node: Any = result
        for position, key in enumerate(keys):
            last = position == len(keys) - 1
            if isinstance(node, list):
                if key not in map(str, range(len(node))):
                    raise ConfigError(f"override {override!r}: {key!r} is no index of a list of {len(node)}")
                index: Any = int(key)
            else:
                index = key
                if not last and not isinstance(node.get(key), dict | list):
                    node[key] = {}
            if last:
                node[index] = value
            else:
                node = node[index]
                if not isinstance(node, dict | list):
                    raise ConfigError(f"override {override!r}: {'.'.join(keys[: position + 1])} has no keys")
    return result


def json_copy(tree: Any) -> Any:
    """A deep copy of plain dicts and lists (tuples become lists)."""
    if isinstance(tree, Mapping):
        return {key: json_copy(value) for key, value in tree.items()}
    return [json_copy(value) for value in tree] if isinstance(tree, list | tuple) else tree


def check(
    model: type[Model],
    tree: object,
    source: str,
    error: type[ConfigError] = ConfigError,
    overrides: Sequence[str] = (),
    context: str | None = None,
) -> Model:
    """The option value that `tree` describes, or `error` with every problem on a line of its own.

    `overrides` are those already applied to the tree: a problem in one of them is said to come from there.
    """
    try:
        return model.model_validate(tree, context=context)
    except ValidationError as problems:
        raise error(explain(problems, model, source, overrides)) from None


def explain(
    error: ValidationError, model: type[BaseModel], source: str, overrides: Sequence[str] = ()
) -> str:
    """One line per problem: `source: key.subkey: got value; what is allowed`."""
    paths = {override.partition("=")[0].strip(): override for override in overrides}
    problems = error.errors(include_url=False)
    inner = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    lines = []
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inner:
            continue  # items that were refused one by one
        keys, owner = _walk(model, problem["loc"])
        path = ".".join(keys)
        origins = (
            f"override {text!r}" for key, text in paths.items() if _inside(path, key) or _inside(key, path)
        )
        origin = next(origins, source)
        where = f"{origin}: {path}" if keys else source
        kind = problem["type"]
        if kind == "extra_forbidden":
            allowed = list(owner.model_fields) if owner else []
            unknown = str(problem["loc"][-1])
            close = difflib.get_close_matches(unknown, allowed, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            lines.append(f"{where}: unknown key {unknown!r}; {hint}allowed: {', '.join(allowed)}")
        elif kind == "missing":
            lines.append(f"{where}: missing, and it has no default")
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            named = next((key for key in reversed(keys) if not key.isdigit()), "")
            field = owner.model_fields.get(named) if owner else None
            names = [str(_tag(choice)) for choice in _models(field.annotation)] if field else []
            got = problem["input"].get("name") if isinstance(problem["input"], Mapping) else problem["input"]
            lines.append(f"{where}: got name {got!r}; allowed: {', '.join(names)}")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            message = message[:1].lower() + message[1:] if kind != "value_error" else message
            value = repr(problem["input"])
            shown = value if len(value) <= 80 else value[:77] + "..."
            got = "" if isinstance(problem["input"], Mapping) and kind == "value_error" else f"got {shown}; "
            if lines and lines[-1].startswith(f"{where}: {got}"):
                lines[-1] += f", or {message}"  # another branch of a union refused the same value
            else:
                lines.append(f"{where}: {got}{message}")
    return "\n".join(lines)


def _inside(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.")


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of an error's place without pydantic's union tags, and the model that owns the last key."""
    keys: list[str] = []
    candidates: list[type[BaseModel]] = [model]
    owner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            keys.append(str(part))
            continue
        named = [candidate for candidate in candidates if part in candidate.model_fields]
        tagged = [candidate for candidate in candidates if _tag(candidate) == part]
        by_class = [candidate for candidate in candidates if candidate.__name__ == part]
        if named and not (tagged and len(candidates) > 1):
            owner = named[0]
            keys.append(part)
            candidates = _models(owner.model_fields[part].annotation)
        elif tagged or by_class:
            candidates = tagged or by_class
            owner = candidates[0]
        elif part in ("function-before", "function-after", "nullable", "str", "int", "float") or "[" in part:
            continue  # pydantic's own names for the branches of a union
        else:
            owner = candidates[0] if candidates else None
            keys.append(part)
    return keys, owner


def _tag(model: type[BaseModel]) -> object:
    field = model.model_fields.get("name")
    choices = typing.get_args(field.annotation) if field is not None else ()
    return choices[0] if len(choices) == 1 else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The option models inside an annotation, looking through unions, containers and `Annotated`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]

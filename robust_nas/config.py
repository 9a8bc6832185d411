"""Options and YAML: loading, overriding, checking, printing. Knows no field words.

Options are frozen pydantic models that refuse unknown keys. Errors name the key, the value, where it was written and
what is allowed, all problems at once; nothing here imports torch, so a mistake is answered at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import stat
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _PydanticMeta
else:
    _PydanticMeta = type(BaseModel)  # pydantic does not export its metaclass by name

Model = TypeVar("Model", bound=BaseModel)
MAX_YAML_BYTES = 4_000_000
MAX_PROBLEMS = 20  # that one message lists
MAX_SHOWN = 80  # characters of an offending value
UNKNOWN_KEY = "unknown_key"


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
    moved: typing.ClassVar[Mapping[str, str]] = {}  # an old key -> where it is now, for the error

    @model_validator(mode="wrap")
    @classmethod
    def _say_which_keys_there_are(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            if any(problem["type"] == "extra_forbidden" for problem in error.errors(include_url=False)):
                raise _name_allowed_keys(error, cls) from None
            raise

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
    """Return the file of that path, `~` expanded; None where there is none, or where no file can be.

    Raises `ConfigError` where it is in a folder that this user may not read.
    """
    try:
        path = Path(name_or_path).expanduser()
        return path if stat.S_ISREG(path.stat().st_mode) else None
    except PermissionError as error:
        raise ConfigError(f"{error.filename}: is not readable: {error.strerror}") from None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a zero byte
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


def to_dict(value: BaseModel) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings of an option value, in the order of its fields, as JSON has them."""
    return value.model_dump(mode="json")


def to_yaml_dict(value: BaseModel) -> dict[str, Any]:
    """The same as a YAML file has it: with numbers such as `8/255`."""
    return value.model_dump(mode="json", context="yaml")


def to_yaml(tree: BaseModel | Mapping[str, Any]) -> str:
    """YAML text of an option value or a plain tree; reading it back gives an equal value."""
    plain = to_yaml_dict(tree) if isinstance(tree, BaseModel) else tree
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def config_hash(value: BaseModel) -> str:
    """Return the first 16 hex digits of the SHA-256 of the value's canonical JSON."""
    return tree_hash(to_dict(value))


def tree_hash(tree: Mapping[str, Any]) -> str:
    """Return the same of plain dicts, lists, numbers and strings."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
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
    """Return one line per problem, `source: key.subkey: got value; what is allowed`, for the first `MAX_PROBLEMS`."""
    paths = {override.partition("=")[0].strip(): override for override in overrides}
    problems = error.errors(include_url=False)
    inner = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    lines: list[str] = []
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inner:
            continue  # items that were refused one by one
        path = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        origins = (
            f"override {text!r}" for key, text in paths.items() if _inside(path, key) or _inside(key, path)
        )
        where = f"{next(origins, source)}: {path}" if path else source
        kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
        if kind in (UNKNOWN_KEY, "method"):
            lines.append(f"{where}: {message}")
        elif kind == "missing":
            lines.append(f"{where}: missing, and it has no default")
        else:
            message = _CONTAINERS.get(kind, message.removeprefix("Assertion failed, "))
            message = message[:1].lower() + message[1:] if kind != "value_error" else message
            value = repr(problem["input"])
            shown = value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 3] + "..."
            got = "" if isinstance(problem["input"], Mapping) and kind == "value_error" else f"got {shown}; "
            if lines and lines[-1].startswith(f"{where}: {got}"):
                lines[-1] += f", or {message}"  # another branch of a union refused the same value
            else:
                lines.append(f"{where}: {got}{message}")
    more = len(lines) - MAX_PROBLEMS
    return "\n".join([*lines[:MAX_PROBLEMS], *([f"... and {more} more problems"] if more > 0 else [])])


_LIST, _MAPPING = "a list is needed", "a mapping of keys to values is needed"
_CONTAINERS = {
    "tuple_type": _LIST,
    "list_type": _LIST,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
}


def _inside(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.")


def _is_branch(part: int | str) -> bool:
    """Return whether a part of an error's place is pydantic's own name for a branch of a union."""
    names = ("function-before", "function-after", "function-plain", "nullable", "str", "int", "float")
    return isinstance(part, str) and (part in names or "[" in part)


def _name_allowed_keys(error: ValidationError, model: type[Options]) -> ValidationError:
    """Return the error with every unknown key of `model` itself answered by the keys that it has."""
    details: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False):
        kind, message = problem["type"], problem["msg"]
        if kind == "extra_forbidden" and len(problem["loc"]) == 1:
            unknown, allowed = str(problem["loc"][0]), list(model.model_fields)
            close = difflib.get_close_matches(unknown, allowed, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = f"{hint}allowed: {', '.join(allowed)}"
            if unknown in model.moved:
                known = f"it is now {model.moved[unknown]}"
            kind, message = UNKNOWN_KEY, f"unknown key {unknown[:200]!r}; {known}"
        # Under a placeholder, because the message may hold braces.
        custom = PydanticCustomError(kind, "{message}", {"message": message})
        details.append(InitErrorDetails(type=custom, loc=problem["loc"], input=problem["input"]))
    return ValidationError.from_exception_data(model.__name__, details)

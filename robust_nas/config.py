"""Options and YAML: loading, overriding, checking, printing. Knows no field words.

Options are frozen pydantic models that refuse unknown keys. Errors name the key, the value, where it was written and
what is allowed, all problems at once; nothing here imports torch, so a mistake is answered at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import stat
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
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
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.overrides import Verbatim as Verbatim
from robust_nas.overrides import apply_overrides as apply_overrides
from robust_nas.overrides import is_branch, shown, with_texts
from robust_nas.overrides import json_copy as json_copy
from robust_nas.yaml_reader import MAX_YAML_BYTES as MAX_YAML_BYTES
from robust_nas.yaml_reader import parse_yaml as parse_yaml

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _PydanticMeta
else:
    _PydanticMeta = type(BaseModel)  # pydantic does not export its metaclass by name

Model = TypeVar("Model", bound=BaseModel)
MAX_PROBLEMS = 20  # that one message lists
MAX_PATH = 200  # of the place of a problem
MAX_LINE = 4000  # of a problem
_UNEXPANDED = re.compile(r"^~[^/]*|\$(\w+|\{\w+\})")
UNKNOWN_KEY = "unknown_key"
_WORDS: dict[str, str] = {}  # what a text has to be, by its regular expression


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

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the types of the keys that a file may have in addition to the fields, or write in another form."""
        return {}

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


def text_field(pattern: str, words: str, **more: Any) -> Any:
    """Return a field of text of this regular expression, which a message puts into words: "a letter first, ..."."""
    _WORDS[pattern] = words
    return Field(pattern=pattern, **more)


def suggestion(given: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the name that is close to what was given, else an empty text."""
    close = difflib.get_close_matches(given, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def keys_in_words(given: str, names: Sequence[str]) -> str:
    """Return `did you mean 'x'? allowed: x, y` of an unknown key; without the question where no key is close."""
    return f"{suggestion(given, names).removeprefix('; ')} allowed: {', '.join(names)}".lstrip()


Number = Annotated[
    float, BeforeValidator(parse_number), PlainSerializer(_serialise_number, when_used="unless-none")
]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction01 = Annotated[Number, Field(ge=0, lt=1)]
Integer = Annotated[int, Field(le=2**63 - 1), BeforeValidator(_no_bool)]  # of torch: 64 bits
Count = Annotated[Integer, Field(ge=1)]
CountOrZero = Annotated[Integer, Field(ge=0)]


def expand_path(path: str | Path) -> Path:
    """Return a path that a user wrote, with `~`, `~user`, `$NAME` and `${NAME}` as a shell reads them.

    Raises `ConfigError` for a user or a variable that is not there.
    """
    text = os.path.expandvars(os.path.expanduser(path))
    unknown = _UNEXPANDED.search(text)
    if unknown is not None and not os.path.lexists(text):
        raise ConfigError(
            f"got path {shown(str(path))}: there is no {unknown[0]!r} here, a user or a variable"
        )
    return Path(text)


def absolute_path(path: str) -> str:
    """Return a path that a user wrote as seen from the current folder: a config means the same wherever it is read.

    Where there can be nothing (no such user, too long, a loop of links) it is `path`: what reads it says so.
    """
    try:
        absolute = expand_path(path).absolute()
        return str(absolute.resolve() if ".." in absolute.parts else absolute)
    except (ConfigError, OSError, RuntimeError, ValueError):
        return path


AbsolutePath = Annotated[str, Field(min_length=1), AfterValidator(absolute_path)]


def absolute_if_file(name_or_path: str) -> str:
    """Return the absolute path of a file; a name, or the path of none, as it is."""
    return name_or_path if existing_file(name_or_path) is None else absolute_path(name_or_path)


def existing_file(name_or_path: str | Path) -> Path | None:
    """Return the file of that path (`expand_path`); None where there is none, or where no file can be.

    Raises `ConfigError` where it is in a folder that this user may not read.
    """
    try:
        path = expand_path(name_or_path)
        return path if stat.S_ISREG(path.stat().st_mode) else None
    except PermissionError as error:
        raise ConfigError(f"{error.filename}: is not readable: {error.strerror}") from None
    except (ConfigError, OSError, ValueError):  # too long, no such user, a zero byte
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
    except ValidationError as found:
        texts = with_texts(tree, found.errors(include_url=False), overrides) if overrides else None
        if texts is None:
            raise error(explain(found, model, source, overrides)) from None
    except CodeRefusedError as refused:
        raise CodeRefusedError(f"{source}: {refused}") from None
    except RecursionError:
        raise error(f"{source}: nested too deep") from None
    return check(model, texts, source, error, overrides, context)


def explain(
    error: ValidationError, model: type[BaseModel], source: str, overrides: Sequence[str] = ()
) -> str:
    """Return one line per problem, `source: key.subkey: got value; what is allowed`, for the first `MAX_PROBLEMS`."""
    paths = {override.partition("=")[0].strip(): override for override in overrides}
    problems = error.errors(include_url=False)
    inner = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    lines: list[str] = []
    for number, problem in enumerate(problems):
        if problem["type"] == "too_short" and problem["loc"] in inner:
            continue  # items that were refused one by one
        path = ".".join(str(part) for part in problem["loc"] if not is_branch(part))
        origins = (
            f"override {shown(text)}"
            for key, text in paths.items()
            if _inside(path, key) or _inside(key, path)
        )
        origin = next(origins, source)
        where = f"{origin}: {path if len(path) <= MAX_PATH else path[:MAX_PATH] + '...'}" if path else origin
        kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
        got = ""
        if kind == "missing":
            message = "missing, and it has no default"
        elif kind not in (UNKNOWN_KEY, "method"):
            message = _CONTAINERS.get(kind, message.removeprefix("Assertion failed, "))
            message = message[:1].lower() + message[1:] if kind != "value_error" else message
            message = _in_words(problem, message)
            of_keys = isinstance(problem["input"], Mapping) and kind == "value_error"
            got = "" if of_keys else f"got {shown(problem['input'])}; "
            if lines and lines[-1].startswith(f"{where}: {got}"):
                lines[-1] = f"{lines[-1]}, or {message}"[:MAX_LINE]  # another branch of a union
                continue
        if len(lines) == MAX_PROBLEMS:
            more = len({problem["loc"] for problem in problems[number:]})
            return "\n".join([*lines, f"... and {more} more problems"])
        lines.append(f"{where}: {got}{message}"[:MAX_LINE])
    return "\n".join(lines)


def _in_words(problem: ErrorDetails, message: str) -> str:
    """Return what is needed in place of pydantic's message, with the name that may be meant."""
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "string_pattern_mismatch":
        message = _WORDS.get(context.get("pattern", ""), message)
    if kind in _NEEDED:
        message = _NEEDED[kind].format(**context)
    if kind == "literal_error":
        names = re.sub(r" or (?=[^ ]+$)", ", ", context["expected"]).replace("'", "")
        message = f"allowed: {names}"
        message += suggestion(given, names.split(", ")) if isinstance(given, str) else ""
    return f"{message}; null is none" if given == "~" else message


_WHOLE, _NUMBER, _BOOLEAN = "a whole number is needed", "a number is needed", "true or false is needed"
_NEEDED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOLEAN),
    "finite_number": "a finite number is needed",
    "string_type": "a text is needed",
    "greater_than": "more than {gt} is needed",
    "greater_than_equal": "at least {ge} is needed",
    "less_than": "less than {lt} is needed",
    "less_than_equal": "at most {le} is allowed",
}


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


def _name_allowed_keys(error: ValidationError, model: type[Options]) -> ValidationError:
    """Return the error with every unknown key of `model` itself answered by the keys that it has."""
    details: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False):
        kind, message = problem["type"], problem["msg"]
        if kind == "extra_forbidden" and len(problem["loc"]) == 1:
            unknown, allowed = str(problem["loc"][0]), list(model.model_fields)
            known = keys_in_words(unknown, allowed)
            if unknown in model.moved:
                known = f"it is now {model.moved[unknown]}"
            kind, message = UNKNOWN_KEY, f"unknown key {unknown[:200]!r}; {known}"
        # Under a placeholder, because the message may hold braces.
        custom = PydanticCustomError(kind, "{message}", {**problem.get("ctx", {}), "message": message})
        details.append(InitErrorDetails(type=custom, loc=problem["loc"], input=problem["input"]))
    return ValidationError.from_exception_data(model.__name__, details)


def differences(old: object, new: object, prefix: str = "") -> set[str]:
    """The dotted keys at which two trees differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = set(old) | set(new)
        nested = (differences(old.get(key), new.get(key), f"{prefix}{key}.") for key in keys)
        return set().union(*nested)
    return set() if old == new else {prefix.rstrip(".")}

"""Descriptions of the keys of options: the comment at a field is what its key means.

    class MLPOptions(Options):
        depth: Count = 1  # hidden layers

The description of a key is the first sentence of the comment on the lines of its field; where there is none, of the
comment lines directly above it; where there is none either, that of the base class. `Field(description=...)` takes the
place of all. Comments are read when somebody asks, from the source file, so that importing options costs nothing;
without sources there are no descriptions.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import yaml
from pydantic import BaseModel

WIDTH = 110  # columns of a printed config with its comments

_FOR_TOOLS = re.compile(r"^(noqa|type:|fmt:|pragma)")
_REST = re.compile(r"\.( (?=[A-Z`]).*)?$")  # what follows a first sentence: reasons, for who reads the source
_NONE = re.compile(r"\bNone\b")  # as Python has it; a config file has null


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of every key that has one, in the order of the fields."""
    return {key: text for key in model.model_fields if (text := description(model, key))}


def description(model: type[BaseModel], key: str) -> str:
    """Return what a key of options means; an empty text where nobody wrote it down."""
    if given := model.model_fields[key].description:
        return given
    comments = (_comments_of(base).get(key, "") for base in model.__mro__ if issubclass(base, BaseModel))
    return _NONE.sub("null", _REST.sub("", next(filter(None, comments), "")))


@cache
def _comments_of(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the comments at the fields that a class itself declares."""
    try:
        file = inspect.getsourcefile(model)
    except (OSError, TypeError):  # made at run time, or typed at a prompt
        return {}
    return {} if file is None else _comments_in(file).get(model.__qualname__, {})


@cache
def _comments_in(file: str) -> Mapping[str, Mapping[str, str]]:
    """Return the comments at the fields of every class of a file, by the class's qualified name."""
    try:
        with tokenize.open(file) as source:
            text = source.read()
        lines = text.splitlines()
        return {
            name: {
                field.target.id: words
                for field in body.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                if (words := _at(field, lines))
            }
            for name, body in _classes(ast.parse(text), "")
        }
    except (OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return {}


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every class in the statements of a node with its qualified name."""
    for child in [*getattr(node, "body", ()), *getattr(node, "orelse", ())]:
        if isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}", child
            yield from _classes(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield from _classes(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _classes(child, prefix)


def _at(field: ast.AnnAssign, lines: Sequence[str]) -> str:
    """Return the comment on the lines of a field, else the lines of comment directly above it."""
    own = lines[field.lineno - 1 : field.end_lineno]
    if inside := [*_comments(own)]:
        return " ".join(inside)
    first = field.lineno - 1
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(_comments(lines[first : field.lineno - 1]))


def _comments(lines: Sequence[str]) -> Iterator[str]:
    """Yield the comments of some whole lines of source."""
    if not any("#" in line for line in lines):
        return
    text = "\n".join(lines).lstrip()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        words = token.string.lstrip("# ").rstrip()
        if token.type == tokenize.COMMENT and words and not _FOR_TOOLS.match(words):
            yield words.partition("  # ")[0]


def commented(text: str, value: BaseModel) -> str:
    """Return the YAML text of an option value with the description of every key as a comment.

    `text` is the whole value or a part of it. A comment is behind the value of its key where the line has the room,
    else above it.
    """
    lines = text.splitlines()
    found = [*_described(yaml.compose(text, Loader=yaml.SafeLoader), value)]
    for line, last, words in sorted(found, reverse=True):
        if last <= line and len(lines[line]) + len(words) + 4 <= WIDTH:
            lines[line] += f"  # {words}"
        else:
            indent = re.match(r"[ -]*", lines[line])
            lines.insert(line, f"{' ' * len(indent[0] if indent else '')}# {words}")
    return "\n".join([*lines, ""])


def _described(node: yaml.Node | None, value: object) -> Iterator[tuple[int, int, str]]:
    """Yield the line of every described key, the last line of a value that is no block, and the description."""
    if isinstance(node, yaml.SequenceNode) and isinstance(value, tuple | list):
        for inner, item in zip(node.value, value, strict=False):
            yield from _described(inner, item)
    if isinstance(node, yaml.MappingNode) and isinstance(value, Mapping):
        for key, inner in node.value:
            yield from _described(inner, value.get(key.value))
    if not isinstance(node, yaml.MappingNode) or not isinstance(value, BaseModel):
        return
    for key, inner in node.value:
        line = key.start_mark.line
        if key.value in type(value).model_fields:
            block = isinstance(inner, yaml.CollectionNode) and not inner.flow_style
            words = description(type(value), key.value)
            if words:
                yield line, line if block else inner.end_mark.line, words
            yield from _described(inner, getattr(value, key.value))
        else:  # a short form of a method in a list
            yield from _described(inner, _named(value, key.value))


def _named(value: BaseModel, name: str) -> BaseModel | None:
    """Return the method of this name in the lists of an option value."""
    items = [item for _, inner in value if isinstance(inner, tuple) for item in inner]
    return next(
        (item for item in items if isinstance(item, BaseModel) and dict(item).get("name") == name), None
    )

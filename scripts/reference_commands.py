"""The command line as a page of the reference, from typer's own description of it (`make_reference.py`)."""

from __future__ import annotations

import re
import textwrap
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

GENERATED = "<!-- Written by scripts/make_reference.py: change the code, and run it again. -->"
WIDTH = 120  # of a line of text


def code(text: str) -> str:
    """Return a text as code in a table."""
    return f"`{text}`".replace("|", "\\|")


def cell(text: str) -> str:
    """Return a text as one cell of a table."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"\s+", " ", text).replace("|", "\\|"))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def wrapped(text: str) -> str:
    """Return a paragraph in lines of at most `WIDTH` characters; a word and a link's text stay whole."""
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def page(parts: Iterable[str]) -> str:
    """Return the text of a page: its parts, an empty line between them."""
    return "\n\n".join(filter(None, parts)) + "\n"


def command_line() -> str:
    """Return the page of the command line."""
    from robust_nas.cli import app

    group = typing.cast(Any, typer.main.get_command(app))
    parts = [GENERATED, "# Command line", str(group.help)]
    parts += [
        wrapped(
            "Exit codes: 0 done, 1 failed, 2 bad usage, 130 ended by Ctrl-C, 143 by SIGTERM. Progress goes to standard "
            "error, results to standard output. What the commands read and write is in "
            "[Commands](../how-to/commands.md)."
        )
    ]
    for name, command in group.commands.items():
        if commands := getattr(command, "commands", None):
            parts += [f"## {name}", str(command.help)]
            for inner, subcommand in commands.items():
                parts += _command(f"{name} {inner}", subcommand, "###")
        else:
            parts += _command(name, command, "##")
    return page(parts)


def _command(name: str, command: Any, level: str) -> Iterator[str]:
    """Yield the heading of a command, its help, and the tables of its arguments and options."""
    yield f"{level} {name}"
    for paragraph in str(command.help).split("\n\n"):
        yield _help(paragraph)
    hints = typing.get_type_hints(command.callback, include_extras=False)
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    options = [each for each in command.params if each.opts[0].startswith("-") and each.name != "help"]
    usage = [f"robust-nas {name}", *(_metavar(each) for each in arguments)]
    yield "```text\n" + " ".join([*usage, "[OPTIONS]"]) + "\n```"
    for title, parameters in (("argument", arguments), ("option", options)):
        if parameters:
            rows = [f"| {title} | value | default | meaning |", "|---|---|---|---|"]
            yield "\n".join([*rows, *(_parameter(each, hints.get(each.name)) for each in parameters)])


def _help(paragraph: str) -> str:
    """Return a paragraph of a help text, its examples as code."""
    text = re.sub(r"\s+", " ", paragraph)
    lead, found, example = text.partition("[bold]")
    if not found:
        return wrapped(re.sub(r"(robust_nas\.[\w.]+\(.*\))", r"`\1`", text))
    code, _, rest = example.partition("[/bold]")
    return f"{wrapped(lead.strip())}\n\n```bash\n{code}\n```" + (
        f"\n\n{_help(rest.strip())}" if rest.strip() else ""
    )


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _parameter(parameter: Any, hint: Any) -> str:
    flag = bool(getattr(parameter, "is_flag", False))
    choices = [each for each in _choices(hint) if isinstance(each, str)]
    value = "" if flag else ", ".join(f"`{each}`" for each in choices) or code(_value(parameter, hint))
    default = parameter.default
    shown = "" if flag or default in (None, (), []) or parameter.required else code(str(default))
    if parameter.required:
        shown = "*required*"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if not parameter.opts[0].startswith("-"):
        names = f"`{_metavar(parameter)}`"
    return f"| {names} | {value} | {shown} | {cell(parameter.help or '')} |"


def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return tuple(choice for each in typing.get_args(hint) for choice in _choices(each))


def _value(parameter: Any, hint: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    for kind, word in ((int, "integer"), (float, "number"), (Path, "path")):
        if hint is kind or kind in typing.get_args(hint) or list[kind] in typing.get_args(hint):  # type: ignore[valid-type]
            return word
    return "text"

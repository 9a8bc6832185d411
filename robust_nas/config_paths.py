"""The paths in a config file, as seen from its folder.

A relative path in a config file is relative to that file; on the command line, and in Python, to the current folder. A
path that the config's folder does not have is looked up in the current folder, as code named by `file.py:name` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_nas.config import expand_path
from robust_nas.errors import ConfigError
from robust_nas.user_code import folders_of, is_code

# Keys, with the section that holds them where another section has the same key; a name of ours is no path.
PATHS = {
    *("data.path", "options.test_path", "hooks.model", "hooks.path", "inherited.search", "surrogates"),
    *("evaluator.file", "evaluator.latency", "reader.codes", "generator", "attack.folder", "attack.file"),
}
NAMES_OR_PATHS = {"space.name", "suite", "base", "architectures", "compare.architecture"}
YAML = (".yaml", ".yml")


def seen_from_file(tree: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """Return the tree of a config file with the paths in it that lie next to it as absolute ones.

    None is a config that ships. A config in a run folder or model folder was resolved before, and keeps its paths.
    """
    folders = () if file is None else folders_of(file)
    return (
        dict(tree) if not folders else {key: _seen(value, key, "", folders[0]) for key, value in tree.items()}
    )


def _seen(value: Any, key: str, section: str, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {inner: _seen(each, str(inner), key, folder) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(each, key, section, folder) for each in value]
    if not isinstance(value, str) or not value:
        return value
    names = {key, f"{section}.{key}"}
    if is_code(value):
        file, _, name = value.rpartition(":")
        return f"{_next_to(file, folder)}:{name}"
    if names & NAMES_OR_PATHS:
        return _next_to(value, folder) if "/" in value or value.endswith(YAML) else value
    return _next_to(value, folder, missing=True) if names & PATHS else value


def _next_to(text: str, folder: Path, *, missing: bool = False) -> str:
    """Return the absolute path of `text` as seen from `folder`; `text` where only the current folder has it.

    Where neither has it the path is `text`, or with `missing` the one in `folder`. Where both are one, it is `text`.
    """
    try:
        here = expand_path(text)
        place = folder / here
        if place.exists():
            return text if here.exists() and here.samefile(place) else str(place)
        return str(place) if missing and not here.exists() else text
    except (
        ConfigError,
        OSError,
        ValueError,
    ):  # too long, no such user, a zero byte: refused where it is read
        return text

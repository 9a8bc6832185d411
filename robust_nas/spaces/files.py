"""Where the shipped search spaces and architectures are: in the wheel, or next to the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from robust_nas.config import existing_file, suggestion
from robust_nas.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """The folder of `search_spaces/`."""
    installed = _PACKAGE / "search_spaces"
    return installed if installed.is_dir() else _PACKAGE.parent / "search_spaces"


def shipped_names(kind: str = "") -> list[str]:
    """Names of the YAML files that ship in a subfolder of `search_spaces/`, sorted."""
    return sorted(path.stem for path in (folder() / kind).glob("*.yaml"))


def is_shipped(kind: str, name: str) -> bool:
    """Whether a file of that name ships; a hyphen and an underscore are one, as in `wrn-34-r`."""
    return name.replace("-", "_") in shipped_names(kind)


def shipped(kind: str, name_or_path: str | Path, error: type[ConfigError], also: str = "") -> Path:
    """The file that a shipped name or a path means.

    Raises `error` with the known names, and with `also`, what else would have been taken.
    """
    text = str(name_or_path)
    if is_shipped(kind, text):
        return folder() / kind / f"{text.replace('-', '_')}.yaml"
    path = existing_file(text)
    if path is not None:
        return path
    known = ", ".join(shipped_names(kind)) + (f"; or {also}" if also else "")
    hint = suggestion(text.replace("-", "_"), shipped_names(kind))
    raise error(f"{text!r} is neither a shipped name nor a file; shipped: {known}{hint}")

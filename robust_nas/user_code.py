"""Code of the user's own, named as `path/to/file.py:name`: found, allowed or refused, and run once.

A file runs only where its user asked for it: in a config or on a command line of their own (`own_config`), or by name
(`allow_code`, on the command line `--allow-code FILE`). Whatever else is read, such as a run folder or a model folder
that somebody sent, is refused when it names code; a path in it is never looked up next to it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from robust_nas.errors import CodeRefusedError, ConfigError

_SPEC = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)", re.DOTALL)


class _Trust(NamedTuple):
    """What may run: any file, with relative paths seen from the first of `bases` that has it; or `files` alone."""

    bases: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()


_NOBODY = _Trust()
_TRUST: ContextVar[_Trust] = ContextVar("robust_nas_user_code", default=_NOBODY)
_LOADED: dict[Path, ModuleType] = {}


def is_code(name: object) -> bool:
    """Return whether a name has the form `file.py:name`."""
    return isinstance(name, str) and _SPEC.fullmatch(name) is not None


@contextmanager
def own_config(*bases: Path) -> Iterator[None]:
    """Let code run that is named inside; relative paths are seen from the first of these folders that has the file."""
    token = _TRUST.set(_TRUST.get()._replace(bases=bases))
    try:
        yield
    finally:
        _TRUST.reset(token)


@contextmanager
def allow_code(files: Iterable[Path | str]) -> Iterator[None]:
    """Let the code of these files run inside, also where a folder names it.

    A folder from another machine names another path: files are matched by their own names, and the one listed
    here runs.
    Raises `ConfigError` for a file that is not there.
    """
    listed = tuple(_existing(Path(file), str(file)) for file in files)
    trust = _TRUST.get()
    token = _TRUST.set(trust._replace(files=(*trust.files, *listed)))
    try:
        yield
    finally:
        _TRUST.reset(token)


def allowed_files() -> tuple[Path, ...]:
    """Return the files that `allow_code` and loading have let run: what a worker process has to be given."""
    return tuple(dict.fromkeys((*_TRUST.get().files, *_LOADED)))


def code_digests() -> dict[str, str]:
    """Return the SHA-256 of every file of user code that this process has run, by path."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in _LOADED if path.is_file()}


def resolve(spec: str) -> tuple[str, object]:
    """Return the absolute form of `file.py:name`, and the object that it names; the file runs once a process.

    Raises `CodeRefusedError` where nobody allowed the file, and `ConfigError` where file or name do not exist, or where
    the file fails.
    """
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ConfigError(f"got {spec!r}; code is named as file.py:name")
    path = _allowed(Path(parts["file"]), spec)
    module = _LOADED.get(path) or _run(path)
    if not hasattr(module, parts["name"]):
        raise ConfigError(f"{path}: has no {parts['name']!r}")
    return f"{path}:{parts['name']}", getattr(module, parts["name"])


def _allowed(file: Path, spec: str) -> Path:
    bases, files = _TRUST.get()
    if file in _LOADED:  # absolute, and has run already
        return file
    for listed in files:
        if listed.name == file.name:
            return listed
    if not bases:
        raise CodeRefusedError(
            f"{spec[:200]!r} is code, which runs only where a config or command line of your own names it; "
            f"read the file, then allow it with --allow-code {file.name} (Python: allow_code=[...])"
        )
    places = [base / file.expanduser() for base in bases]
    return _existing(next((place for place in places if _is_file(place)), places[0]), spec)


def _existing(path: Path, given: str) -> Path:
    if not _is_file(path):
        raise ConfigError(f"got {given[:200]!r}; there is no such file")
    return path.expanduser().resolve()


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a zero byte, no such user
        return False


def _run(path: Path) -> ModuleType:
    name = f"robust_nas_user_code_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ConfigError(f"{path}: is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pydantic look themselves up there
    sys.path.insert(0, str(path.parent))  # so that the file finds its neighbours
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises; a script may exit
        del sys.modules[name]
        raise ConfigError(f"{path}: fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    _LOADED[path] = module
    return module

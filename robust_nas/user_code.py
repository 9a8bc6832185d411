"""Code of the user's own, named as `path/to/file.py:name`: found, allowed or refused, and run once.

A file runs only where its user asked for it: in a config or on a command line of their own (`own_config`), or by name
(`allow_code`, on the command line `--allow-code FILE`). Whatever else is read, such as a run folder or a model folder
that somebody sent, is refused when it names code (`from_elsewhere`); a path in it is never looked up next to it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from robust_nas.config import expand_path
from robust_nas.errors import CodeRefusedError, ConfigError

_SPEC = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)", re.DOTALL)


@dataclass(frozen=True)
class _Trust:
    """What may run: any file, with relative paths seen from the first of `bases` that has it; or `files` alone."""

    bases: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()


class _Loaded(NamedTuple):
    module: ModuleType
    digest: str  # SHA-256 of the text that ran


_NOBODY = _Trust()
_TRUST: ContextVar[_Trust] = ContextVar("robust_nas_user_code", default=_NOBODY)
_LOADED: dict[Path, _Loaded] = {}
_RUN: set[str] = set()  # files that ran, also those that are no plugins
_MADE_HERE = ("environment.json", "model.json")  # files of run folders and of model folders


def is_code(name: object) -> bool:
    """Return whether a name has the form `file.py:name`."""
    return isinstance(name, str) and _SPEC.fullmatch(name) is not None


@contextmanager
def own_config(*bases: Path) -> Iterator[None]:
    """Let code run that is named inside; relative paths are seen from the first of these folders that has the file."""
    token = _TRUST.set(replace(_TRUST.get(), bases=bases))
    try:
        yield
    finally:
        _TRUST.reset(token)


def folders_of(config: Path | None) -> tuple[Path, ...]:
    """Return the folders from which `own_config` sees the code that a config file names: its own and the current one.

    None is a command line, or a config that ships. A config in a run folder or model folder may come from anybody:
    there is then no such folder, and its code is refused.
    """
    if config is None:
        return (Path.cwd(),)
    folder = config.resolve().parent
    return () if any((folder / name).exists() for name in _MADE_HERE) else (folder, Path.cwd())


@contextmanager
def from_elsewhere() -> Iterator[None]:
    """Read something inside that anybody may have sent, such as a model folder: its code needs `allow_code`."""
    with own_config():
        yield


@contextmanager
def allow_code(files: Iterable[Path | str]) -> Iterator[None]:
    """Let the code of these files run inside, also where a folder names it.

    A folder from another machine names another path: where the path itself is not listed, the listed file of the same
    name runs. Raises `ConfigError` for a file that is not there.
    """
    listed = (_existing(Path(file), str(file)) for file in files)
    trust = _TRUST.get()
    token = _TRUST.set(replace(trust, files=tuple(dict.fromkeys((*trust.files, *listed)))))
    try:
        yield
    finally:
        _TRUST.reset(token)


def allowed_files() -> tuple[Path, ...]:
    """Return the files that `allow_code` and loading have let run: what a worker process has to be given."""
    return tuple(dict.fromkeys((*_TRUST.get().files, *_LOADED)))


def code_digests() -> dict[str, str]:
    """Return the SHA-256 of every file of user code that this process has run, by path."""
    return {str(path): loaded.digest for path, loaded in _LOADED.items()}


def code_in(tree: Any) -> list[str]:
    """Return every `file.py:name` in a config's tree."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [spec for value in tree for spec in code_in(value)]
    return [tree] if is_code(tree) else []


def absolute_names(tree: Any) -> Any:
    """Return a config's tree with every `file.py:name` in its absolute form, so that it can be read from anywhere."""
    return _renamed(tree, lambda spec: resolve(spec)[0])


def names_by_content(tree: Any) -> Any:
    """Return a tree with the SHA-256 of its text in the place of every file in `file.py:name`, wherever it lies.

    Raises what `resolve` raises.
    """

    def by_content(spec: str) -> str:
        path, _, name = resolve(spec)[0].rpartition(":")
        return f"{_LOADED[Path(path)].digest}:{name}"

    return _renamed(tree, by_content)


def _renamed(tree: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _renamed(value, rename) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_renamed(value, rename) for value in tree]
    return rename(tree) if is_code(tree) else tree


def line_of(error: BaseException) -> str | None:
    """Return `file.py:line` of the user code that an exception came from; None where it did not pass any."""
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        (f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if frame.filename in _RUN), None
    )


def resolve(spec: str) -> tuple[str, object]:
    """Return the absolute form of `file.py:name`, and the object that it names; the file runs once a process.

    Raises `CodeRefusedError` where nobody allowed the file, and `ConfigError` where file or name do not exist, or where
    the file fails.
    """
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ConfigError(f"got {spec!r}; code is named as file.py:name")
    path = _allowed(Path(parts["file"]), spec)
    if path not in _LOADED:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        _LOADED[path] = _Loaded(run_file(path), digest)
    module = _LOADED[path].module
    if not hasattr(module, parts["name"]):
        names = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        ]
        raise ConfigError(f"{path}: has no {parts['name']!r}; it has {', '.join(names) or 'no classes'}")
    return f"{path}:{parts['name']}", getattr(module, parts["name"])


def _allowed(file: Path, spec: str) -> Path:
    bases, files = _TRUST.get().bases, _TRUST.get().files
    if file in files or file in _LOADED:  # absolute, and listed or run already
        return file
    places = [base / expand_path(file) for base in bases]
    for place in places:
        if _is_file(place):
            return _existing(place, spec)
    listed = [path for path in files if path.name == file.name]
    if len(listed) > 1:
        raise ConfigError(
            f"{spec[:200]!r}: several files of this name are allowed: {', '.join(map(str, listed))}"
        )
    if listed:
        return listed[0]
    if not bases:
        raise CodeRefusedError(
            f"{spec[:200]!r} is code, which runs only where a config or command line of your own names it; "
            f"read the file, then allow it with --allow-code {file.name} (Python: allow_code=[...])"
        )
    seen = "" if expand_path(file).is_absolute() else f" in {' or '.join(map(str, dict.fromkeys(bases)))}"
    raise ConfigError(f"got {spec[:200]!r}; there is no such file{seen}")


def _existing(path: Path, given: str) -> Path:
    if not _is_file(path):
        raise ConfigError(f"got {given[:200]!r}; there is no such file")
    return Path(os.path.abspath(expand_path(path)))  # a link keeps its name, by which a folder calls it


def _is_file(path: Path) -> bool:
    try:
        return expand_path(path).is_file()
    except (ConfigError, OSError, ValueError):  # no such user, too long, a zero byte
        return False


def run_file(path: Path) -> ModuleType:
    """Run a Python file that its user named, and return its module. Raises `ConfigError` where it fails."""
    _RUN.add(str(path))
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
        raise ConfigError(f"{line_of(error) or path}: fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module

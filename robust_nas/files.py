"""Files of run folders and exports: written complete or not at all, and what a kill leaves of one.

A file that is being written is called `.NAME.PID.tmp`, everywhere. The next writer of NAME removes what dead processes
left of it, and who opens a run folder removes all such files in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_nas.errors import RunError

LOCK = ".lock"
CARD, CARD_MARK = (
    "README.md",
    b"<!-- Written by robust_nas",
)  # of a model folder; without the mark it is somebody's own
LOGS = "loggers"  # folder of a run in which loggers write what they like
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]+)\.tmp")
_PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")  # of a figure, by earlier versions
# Of all verbs, and of earlier versions. A file of a plugin is ours where its job lists it among its artifacts.
_OURS = {
    *(
        "config.yaml",
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoint.pt",
        "result.json",
        LOCK,
    ),
    *(
        "architecture.yaml",
        "model.safetensors",
        "model.json",
        "alphas.json",
        "summary.json",
        "evaluation.json",
    ),
    *("learned.npz", "generator.json", "generator.safetensors", "report.json", "defence.json"),
    *("compression.json", "layers.json", "alpha.safetensors", "low-rank.safetensors", "latency.json"),
    *("network.py", "weights.pt", "network.onnx", "network.pt2"),
    *("journal.jsonl", "plan.json", "inherited.json", "trial.json", "outcome.json"),
    *("set.npz", "attack.json", "saved_set.json", "examples.png", "examples.svg", "examples.csv"),
    "config.json",  # of an export for a model hub
    *("analysis.json", "table.csv", "ranking.csv", "report.html", "controls.json", "verdict.json"),
}
_INSIDE = {
    "figures": (".png", ".svg", ".csv"),
    "trials": (".log",),
    "validation": (".json",),
    "scores": (".pt",),
    "latency": (".json",),
}  # by folder


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """Return 16 hex digits of the SHA-256 of the files of these names in a folder, one after the other."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file under its final name completely or not at all.

    Raises `RunError` when it cannot be written; what had that name before then stays.
    """
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Write files that belong together, all of them before the first one gets its final name.

    A kill in between leaves the later ones missing, never of another version than the first. Errors as `write_atomic`.
    """
    temporary = {path: temporary_name(path) for path in contents}
    path = next(iter(contents))
    try:
        for path, data in contents.items():
            _sweep_name(path)
            with temporary[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in list(contents)[1:]:
            path.unlink(missing_ok=True)
        for path in contents:
            os.replace(temporary[path], path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        for each in temporary.values():
            with contextlib.suppress(OSError):
                each.unlink(missing_ok=True)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. NaN is refused, since JSON has none."""
    write_atomic(path, (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode())


def temporary_name(path: Path) -> Path:
    """Return where this process writes, or puts aside, what is called `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_temporary(path: Path) -> bool:
    """Return whether a file or folder is one that a process was writing, or removing."""
    return (_TEMPORARY.fullmatch(path.name) or _PART.fullmatch(path.name)) is not None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written in a folder that the caller has locked.

    Runs inside, which have a lock of their own, are left to those who open them.
    """
    for path in _children(folder):
        if is_temporary(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_dir() and not path.is_symlink() and not (path / LOCK).exists():
            sweep(path)


def is_writable(folder: Path) -> bool:
    """Return whether this process may write into a folder."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def is_empty(path: Path) -> bool:
    """Return whether a path is a folder without any file in it."""
    return path.is_dir() and not path.is_symlink() and all(is_empty(child) for child in path.iterdir())


def _sweep_name(path: Path) -> None:
    """Remove what dead processes left of a file with this name."""
    for other in _children(path.parent):
        found = _TEMPORARY.fullmatch(other.name)
        if found and found["name"] == path.name and not _is_alive(int(found["process"])):
            with contextlib.suppress(OSError):
                other.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def foreign(folder: Path) -> Iterator[Path]:
    """Yield the files in a run folder that no verb writes; links, which are never followed, are none."""
    artifacts = _artifacts(folder)
    for path in _children(folder):
        if path.is_symlink() or is_temporary(path):
            continue
        if path.is_dir():
            if path.name != LOGS:
                yield from foreign(path)
        elif not (
            path.name in _OURS
            or is_card(path)
            or path.name in artifacts
            or path.suffix in _INSIDE.get(folder.name, ())
        ):
            yield path


def is_card(path: Path) -> bool:
    """Return whether a file is a model card that this package wrote, and not somebody's own `README.md`."""
    if path.name != CARD:
        return False
    try:
        return CARD_MARK in path.read_bytes()
    except OSError:
        return False


def _artifacts(folder: Path) -> set[str]:
    try:
        tree = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return {Path(name).name for name in tree["artifacts"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []

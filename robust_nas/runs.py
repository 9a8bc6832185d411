"""Run folders: config, environment, metrics, checkpoints, artifacts; written so that a kill at any instant loses nothing.

Files appear under their final name complete or not at all. `metrics.jsonl` is append-only; a checkpoint remembers its
length, and a resumed run cuts off what was written after the checkpoint. `result.json`, written last, marks the end.
A lock keeps two processes out of one folder and is released by the kernel when its process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from robust_nas._version import __version__
from robust_nas.config import Options, config_hash, read_yaml, to_tree, to_yaml
from robust_nas.errors import CheckpointError, RobustNASError, RunError, RunExistsError

Mode = Literal["new", "resume", "overwrite"]
CONFIG, ENVIRONMENT, METRICS, CHECKPOINT, RESULT = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "checkpoint.pt",
    "result.json",
)


class Progress(Protocol):
    """Told how far a job is; the command line draws it."""

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `job`; `note` is a short text such as the present loss."""


def silent(job: str, done: int, total: int, note: str = "") -> None:
    """The progress of a library call that shows none."""


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file under its final name completely or not at all. Raises `RunError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """A JSON file, atomically. NaN is refused, since JSON has none."""
    write_atomic(path, (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds. Raises `RunError` when it is missing or damaged."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path}: a JSON object is needed")
    return tree


def environment(config: Options, **more: Any) -> dict[str, Any]:
    """What a result depends on beside its config: versions, machine, code version, and what the caller adds."""
    packages = ("torch", "numpy", "safetensors", "pydantic", "pyautoattack")
    return {
        "robust_nas": __version__,
        "code": _code_version(),
        "config_hash": config_hash(config),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **more,
    }


def _code_version() -> str | None:
    """The commit of the checkout this package runs from, with `+` when it has changes; None for an installed one."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - fixed arguments
                [git, "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


class Run:
    """An opened run folder. Use as a context manager; the lock is held until it ends."""

    def __init__(self, folder: Path, config: Options, mode: Mode = "new") -> None:
        """Opens or makes the folder.

        Raises `RunExistsError` when it holds anything and mode is "new", `RunError` when it cannot be written, is in
        use, or belongs to another config (resume) or to no run at all (overwrite).
        """
        self.folder = Path(folder)
        self.config = config
        occupied = self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))
        if occupied and mode == "new":
            raise RunExistsError(
                f"{self.folder}: exists already; continue it with --resume, replace it with --overwrite, "
                "or choose another folder with --out"
            )
        if occupied and mode == "overwrite" and not (self.folder / CONFIG).is_file():
            raise RunExistsError(f"{self.folder}: holds no {CONFIG}, so it is no run and is not overwritten")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("a")
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RunError(f"{self.folder}: another process is working in it") from None
        self._metrics: IO[bytes] | None = None
        try:
            self._prepare(mode)
        except RobustNASError:
            self.close()
            raise

    def _prepare(self, mode: Mode) -> None:
        if mode == "overwrite":
            for child in self.folder.iterdir():
                if child.name != ".lock":
                    shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        if mode == "resume" and (self.folder / CONFIG).is_file():
            changed = sorted(differences(read_yaml(self.folder / CONFIG), to_tree(self.config)))
            if changed:
                raise RunExistsError(
                    f"{self.folder}: was started with another config and cannot be resumed with this one; "
                    f"different: {', '.join(changed[:6])}"
                )
        else:
            self.write(CONFIG, to_yaml(self.config))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the metrics and releases the lock."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self._lock.close()

    def write(self, name: str, text: str) -> Path:
        """Writes a text file of the run atomically and returns its path."""
        path = self.folder / name
        write_atomic(path, text.encode())
        return path

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`."""
        try:
            if self._metrics is None:
                self._metrics = (self.folder / METRICS).open("ab")
            self._metrics.write((json.dumps(record, separators=(",", ":")) + "\n").encode())
        except OSError as error:
            raise RunError(f"{self.folder / METRICS}: cannot be written: {error.strerror or error}") from None

    def records(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl` so far."""
        if self._metrics is not None:
            self._metrics.flush()
        path = self.folder / METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint by `state` (tensors, numbers, strings, lists, dicts), atomically.

        Raises `RunError` when it cannot be written; the checkpoint before it stays.
        """
        import torch

        path = self.folder / CHECKPOINT
        temporary = self.folder / f".{CHECKPOINT}.{os.getpid()}.tmp"
        try:
            offset = 0
            if self._metrics is not None:
                self._metrics.flush()
                os.fsync(self._metrics.fileno())
            if (self.folder / METRICS).is_file():
                offset = (self.folder / METRICS).stat().st_size
            whole = {**state, "config_hash": config_hash(self.config), "metrics_bytes": offset}
            with temporary.open("wb") as file:
                torch.save(whole, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            kept = "the last good checkpoint stays" if path.is_file() else "there is no checkpoint yet"
            raise RunError(f"{path}: cannot be written: {error}; {kept}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None when there is none; cuts the metrics back to it.

        Raises `CheckpointError` for a damaged or foreign file. Nothing in the file is executed.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            (self.folder / METRICS).unlink(missing_ok=True)
            return None
        state = read_checkpoint(path)
        if state.get("config_hash") != config_hash(self.config):
            raise CheckpointError(f"{path}: belongs to another config")
        length = (self.folder / METRICS).stat().st_size if (self.folder / METRICS).is_file() else 0
        if length < state["metrics_bytes"]:
            raise CheckpointError(f"{self.folder / METRICS}: is shorter than when the checkpoint was written")
        if length > state["metrics_bytes"]:
            os.truncate(self.folder / METRICS, state["metrics_bytes"])
        return state

    @property
    def finished(self) -> bool:
        """Whether the job of this folder came to its end."""
        return (self.folder / RESULT).is_file()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, the mark of a finished job."""
        if self._metrics is not None:
            self._metrics.flush()
        write_json(self.folder / RESULT, result)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, read without executing anything. Raises `CheckpointError`."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: refused, it is no plain checkpoint: {reason}") from None
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged or truncated: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or "metrics_bytes" not in state:
        raise CheckpointError(f"{path}: is not a checkpoint of a run")
    return state


def differences(old: object, new: object, prefix: str = "") -> set[str]:
    """The dotted keys at which two trees differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = set(old) | set(new)
        nested = (differences(old.get(key), new.get(key), f"{prefix}{key}.") for key in keys)
        return set().union(*nested)
    return set() if old == new else {prefix.rstrip(".")}

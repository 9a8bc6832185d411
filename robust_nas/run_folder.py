"""Run folders: config, environment, metrics, checkpoints, artifacts; a kill at any instant loses nothing.

`config.yaml` holds what the result depends on and nothing else: a run is known by it. `recipe.yaml`, where there is
one, is the whole config that the run was started with. Files appear under their final name complete or not at all.
`metrics.jsonl` is append-only; a checkpoint remembers its length, and a resumed run cuts off what was written after the
checkpoint. `result.json`, written last, marks the end.
A lock keeps two processes out of one folder and is released by the kernel when its process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Protocol, get_args

from robust_nas.checkpoints import read_checkpoint
from robust_nas.config import Options, read_yaml, to_dict, to_yaml, tree_hash
from robust_nas.errors import CheckpointError, ConfigError, RunError, RunExistsError
from robust_nas.extension import ExtensibleJob, continued, is_extension
from robust_nas.files import LOCK, foreign, is_empty, is_temporary, is_writable, sweep, temporary_name
from robust_nas.files import write_atomic as write_atomic
from robust_nas.files import write_json as write_json
from robust_nas.finished_files import FinishedFiles
from robust_nas.logger import RunLoggers
from robust_nas.record_log import RecordLog
from robust_nas.records import ANY_OBJECT, Shape, file_digests, read_environment, read_lines
from robust_nas.records import ENVIRONMENT as ENVIRONMENT
from robust_nas.records import RESULT as RESULT
from robust_nas.records import read_json as read_json
from robust_nas.user_code import code_digests, code_in

Mode = Literal["new", "resume", "overwrite"]
CONFIG, RECIPE, METRICS, CHECKPOINT = "config.yaml", "recipe.yaml", "metrics.jsonl", "checkpoint.pt"
NOT_DRAWN = "not_drawn"  # key of the result: stems of figures that failed
NOT_LOGGED = "not_logged"  # key of the result: why loggers were dropped


class Progress(Protocol):
    """Receive how far a job is; the command line draws it."""

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `job`; `note` is a short text such as the present loss."""


def silent(job: str, done: int, total: int, note: str = "") -> None:
    """The progress of a library call that shows none."""


class Run:
    """An opened run folder. Use as a context manager; the lock is held until it ends."""

    def __init__(
        self, folder: Path, config: Options, mode: Mode = "new", *, recipe: Options | None = None
    ) -> None:
        """Opens or makes the folder.

        `config` is what the result depends on; `recipe` is the whole config, kept for those who read the folder.
        Raises `RunExistsError` when it holds anything and mode is "new", belongs to another config (resume), or is no
        run (resume, overwrite); and `RunError` when it cannot be written or is in use.
        """
        if mode not in get_args(Mode):
            raise ConfigError(f"mode: got {mode!r}; allowed: {', '.join(get_args(Mode))}")
        self.folder = Path(folder)
        self.config = config
        self.recipe = recipe
        self._made = not self.folder.exists()
        self._before: FinishedFiles | None = None  # of a finished folder that is extended
        self._metrics: IO[bytes] | None = None
        self._lock: IO[Any] | None = None
        self._loggers = RunLoggers(self.folder, recipe)
        try:
            refuse_occupied(self.folder, mode)
            if mode == "resume" and is_finished(self.folder) and not is_writable(self.folder):
                self._continue(read_yaml(self.folder / CONFIG))
                return  # to be shown; nobody writes there
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / LOCK).open("a")
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
        try:
            _lock_or_refuse(self._lock, self.folder)
            # Again: another process may have come and gone before the lock was ours.
            refuse_occupied(self.folder, mode)
            self._prepare(mode)
        except OSError as error:
            self.close()
            raise RunError(f"{self.folder}: cannot be used: {error}") from None
        except BaseException:
            self.close()
            raise

    def _prepare(self, mode: Mode) -> None:
        if mode == "overwrite":
            self._clear()
        sweep(self.folder)
        if not (mode == "resume" and (self.folder / CONFIG).is_file()):
            self.write(CONFIG, to_yaml(self.config))
        stored = self._continue(read_yaml(self.folder / CONFIG))
        if self._goes_on:
            self._refuse_other_code()
        # Of the file as it is: a key that a later version added with its default is not in it.
        self._hash = tree_hash(stored)
        path = self.folder / RECIPE
        if self.recipe is not None and isinstance(self.config, ExtensibleJob):
            self.recipe = self.config.recipe_of(self.recipe)
        text = None if self.recipe is None else to_yaml(self.recipe)
        if text is not None and not (path.is_file() and path.read_bytes() == text.encode()):
            self.write(RECIPE, text)

    def _continue(self, before: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the stored config, `before` or as it was extended now; the folder is no longer finished then.

        Raises `RunExistsError` unless it is this one, as written or by today's defaults, or this one extends it.
        """
        job = continued(self.folder, self.config, before)
        if job is None:
            return before
        self.config = job
        if not is_extension(job, before):
            return before
        self._refuse_other_code()
        if is_finished(self.folder):
            self._before = FinishedFiles(self.folder, CHECKPOINT, (CONFIG, RESULT))
        # First: until the config is there, the old job resumes.
        (self.folder / RESULT).unlink(missing_ok=True)
        self.write(CONFIG, to_yaml(job))
        return read_yaml(self.folder / CONFIG)

    @property
    def _goes_on(self) -> bool:
        """Return whether anything that the result depends on is still to be computed."""
        return not self.finished

    @property
    def _deciding(self) -> Mapping[str, Any]:
        """Return the part of the config that what is still to be computed depends on."""
        return to_dict(self.config)

    @property
    def hashes(self) -> list[str]:
        """Return the hashes of configs that a checkpoint may be of: the present one, then those before extensions."""
        return [self._hash, *(each.config_hash for each in getattr(self.config, "extended", ()))]

    @property
    def started_with(self) -> dict[str, str]:
        """Return the SHA-256 of every file of user code that decides the result, as the run was started with it."""
        before = read_environment(self.folder).get("user_code", {})
        files = {spec.rpartition(":")[0] for spec in code_in(self._deciding)}
        return {file: before[file] for file in sorted(files & before.keys())}

    def _refuse_other_code(self) -> None:
        """Raises `RunExistsError` where a file that the config names is not the one that the run was started with."""
        now = code_digests()
        changed = [file for file, digest in self.started_with.items() if digest != now.get(file)]
        if changed:
            raise RunExistsError(
                f"{self.folder}: was started with another version of {', '.join(changed[:6])}; put the file back, "
                "start again with --overwrite, or choose another folder with --out"
            )

    def _clear(self) -> None:
        """Empties the folder, in an order in which a kill leaves a run that can be resumed or overwritten.

        What says that the run is finished or far goes first; the config stays until the new one takes its place.
        Raises `RunError` when another process works in a run inside, and `RunExistsError` for files that are not ours.
        """
        if others := [str(path.relative_to(self.folder)) for path in foreign(self.folder)]:
            raise RunExistsError(
                f"{self.folder}: holds what no run wrote, which --overwrite would remove: {', '.join(others[:6])}"
                f"{f' and {len(others) - 6} more' if len(others) > 6 else ''}; move it away, or choose another "
                "folder with --out"
            )
        with contextlib.ExitStack() as inner:
            for path in self.folder.glob(f"*/**/{LOCK}"):
                _lock_or_refuse(inner.enter_context(path.open("a")), path.parent)
            self._remove_children()

    def _remove_children(self) -> None:
        for child in sorted(
            self.folder.iterdir(), key=lambda child: (child.name != RESULT, child.name != CHECKPOINT)
        ):
            if child.name in (LOCK, CONFIG):
                continue
            if child.is_dir() and not child.is_symlink():
                # A run inside loses its name at once: it is never met half deleted.
                child = child.rename(temporary_name(child))
                shutil.rmtree(child)
            else:
                child.unlink()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self._discard_if_nothing_was_done()
        self._close_metrics()
        if kind is not None and self._before is not None and self._before.are_better_than(kind):
            self._before.put_back()
        self.close()

    @property
    def _untouched(self) -> bool:
        """Return whether the folder holds nothing but what is written before the work starts."""
        before = {CONFIG, RECIPE, ENVIRONMENT, LOCK, "report.html"}  # a live one
        return all(child.name in before or is_empty(child) for child in self.folder.iterdir())

    def _discard_if_nothing_was_done(self) -> None:
        """Removes a folder that a mistake of the user left without any work in it, so that it is not in the way."""
        with contextlib.suppress(OSError):  # then the folder stays, and the mistake is what is reported
            if self._made and self._untouched:
                shutil.rmtree(self.folder)

    def close(self) -> None:
        """Closes loggers and metrics, and releases the lock."""
        self._loggers.close()
        self._close_metrics()
        if self._lock is not None:
            self._lock.close()

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            with contextlib.suppress(OSError):  # a full disk; what a checkpoint counts on was flushed with it
                self._metrics.close()
            self._metrics = None

    def write(self, name: str, text: str) -> Path:
        """Writes a text file of the run atomically and returns its path."""
        path = self.folder / name
        write_atomic(path, text.encode())
        return path

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`."""
        with self._metrics_errors():
            if self._metrics is None:
                self._metrics = (self.folder / METRICS).open("ab")
            self._metrics.write((json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode())
            self._metrics.flush()  # for those who watch it; what a checkpoint counts on is also synchronised
        self._loggers.log(record, self.records)

    def records(self, shape: Shape = ANY_OBJECT) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl` so far, each of this shape."""
        self._flush_metrics()
        return read_lines(self.folder / METRICS, shape)

    def _flush_metrics(self) -> int:
        """Brings the metrics to the disk and returns their length in bytes."""
        with self._metrics_errors():
            if self._metrics is not None:
                self._metrics.flush()
                os.fsync(self._metrics.fileno())
            path = self.folder / METRICS
            return path.stat().st_size if path.is_file() else 0

    @contextlib.contextmanager
    def _metrics_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = self.folder / METRICS
            raise RunError(f"{path}: cannot be written: {error.strerror or error}; {self._kept()}") from None

    def _kept(self) -> str:
        there = (self.folder / CHECKPOINT).is_file()
        return "the last good checkpoint stays" if there else "there is no checkpoint yet"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint by `state` (tensors, numbers, strings, lists, dicts), atomically.

        Raises `RunError` when it cannot be written; the checkpoint before it stays.
        """
        import torch

        offset = self._flush_metrics()
        whole = {**state, "config_hash": self._hash, "metrics_bytes": offset}
        buffer = io.BytesIO()  # in one piece: torch's own writer words a full disk as a bug of its own
        torch.save(whole, buffer)
        try:
            self._keep_checkpoint()
            write_atomic(self.folder / CHECKPOINT, buffer.getbuffer())
        except RunError as error:
            raise RunError(f"{error}; {self._kept()}") from None

    def _keep_checkpoint(self) -> None:
        if self._before is not None:
            self._before.keep_checkpoint()

    def record_log(self, job: str, name: str = CHECKPOINT) -> RecordLog:
        """Return the records that a job appends to its checkpoint, or to another file. Raises `CheckpointError`."""
        return RecordLog(self.folder / name, job, self.hashes, self._keep_checkpoint)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None when there is none; cuts the metrics back to it.

        Raises `CheckpointError` for a damaged or foreign file. Nothing in the file is executed.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            (self.folder / METRICS).unlink(missing_ok=True)
            return None
        state = read_checkpoint(path)
        if state.get("config_hash") not in self.hashes:
            raise CheckpointError(f"{path}: belongs to another config")
        length = self._flush_metrics()
        if length < state["metrics_bytes"]:
            raise CheckpointError(f"{self.folder / METRICS}: is shorter than when the checkpoint was written")
        if length > state["metrics_bytes"]:
            with self._metrics_errors():
                os.truncate(self.folder / METRICS, state["metrics_bytes"])
        return state

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Puts a checkpoint back inside; what torch raises when it does not fit becomes `CheckpointError`."""
        try:
            yield
        except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.folder / CHECKPOINT}: does not fit this run: {error}") from None

    @property
    def finished(self) -> bool:
        """Whether the job of this folder came to its end."""
        return is_finished(self.folder)

    @property
    def complete(self) -> bool:
        """Whether the job is finished, and no figure of it failed that its checkpoint allows to draw again."""
        return is_complete(self.folder)

    def finish(
        self, result: Mapping[str, Any], artifacts: Sequence[str], figures: Iterable[str] = ()
    ) -> None:
        """Writes `result.json`, the mark of a finished job, with its artifacts and the digests of its JSON files.

        `figures` are the stems of those that were to be drawn; the artifacts are joined by those that are there.
        """
        self._flush_metrics()
        paths = {stem: f"figures/{stem}.png" for stem in figures}
        drawn = [path for path in paths.values() if (self.folder / path).is_file()]
        missing = [stem for stem, path in paths.items() if path not in drawn]
        names = [*artifacts, *drawn]
        record = {**result, "artifacts": names, "digests": file_digests(self.folder, names)}
        self._loggers.start(self.records)  # what was recorded before a kill, and nothing since
        self._loggers.close()
        own = {NOT_DRAWN: missing, NOT_LOGGED: self._loggers.dropped}
        write_json(self.folder / RESULT, {**record, **{key: lines for key, lines in own.items() if lines}})


def refuse_occupied(folder: Path, mode: Mode) -> None:
    """Raise `RunExistsError` when `mode` does not allow a run in the folder for what it holds; nothing is opened."""
    if folder.is_dir():
        names = {child.name for child in folder.iterdir() if not is_temporary(child)}
        if not names - {LOCK}:
            return
    elif not folder.exists():
        return
    if mode == "new":
        raise RunExistsError(
            f"{folder}: exists already; continue it with --resume, replace it with --overwrite, "
            "or choose another folder with --out"
        )
    if not ((folder / CONFIG).is_file() and (folder / LOCK).is_file()):
        refused = "continued" if mode == "resume" else "overwritten"
        raise RunExistsError(
            f"{folder}: holds no {CONFIG} and {LOCK} of a run, so it is none and is not {refused}"
        )
    if mode == "overwrite" and folder.resolve() in (Path.home(), *Path.cwd().parents, Path.cwd()):
        raise RunExistsError(f"{folder}: is where you are, or above it, and is not overwritten")


def is_finished(folder: Path) -> bool:
    """Whether the job of a folder came to its end, and what it made is still there: else it can be made again."""
    try:
        artifacts = read_json(folder / RESULT, {"artifacts": [str]})["artifacts"]
        return all((folder / name).exists() for name in artifacts)
    except (RunError, OSError):  # damaged; a name that no file can have
        return False


def is_complete(folder: Path) -> bool:
    """Whether a job is finished, and no figure failed that can be drawn again: without its checkpoint none can."""
    if not is_finished(folder):
        return False
    lacks = read_json(folder / RESULT).get(NOT_DRAWN) and (folder / CHECKPOINT).is_file()
    return not (lacks and is_writable(folder))


def _lock_or_refuse(file: IO[Any], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunError(f"{folder}: another process is working in it") from None

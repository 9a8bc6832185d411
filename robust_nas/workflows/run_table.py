"""The runs of a folder as a table: what each one is, how far it is, and what it measured; and removing one.

A run folder has a `config.yaml` and a lock; of the config only the names of sections and plain values are read, so that
hundreds of folders are listed in a second. What cannot be read is a row, too: `broken`, and why.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from robust_nas.config import suggestion
from robust_nas.errors import ConfigError, RobustNASError, RunError, RunExistsError
from robust_nas.files import LOCK, foreign, is_temporary, temporary_name
from robust_nas.records import read_json
from robust_nas.run_folder import CONFIG, ENVIRONMENT, RESULT, is_finished

if TYPE_CHECKING:
    import pandas

State = Literal["done", "running", "unfinished", "broken"]

# The first verb all of whose sections a config has; a set of names each.
VERBS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (verb, frozenset(keys.split()))
    for verb, keys in (
        ("run", "space search steps"),
        ("compress", "compression model digest"),
        ("evaluate", "evaluation model digest"),
        ("attack train", "threat_model method report model"),
        ("defend", "method model digest"),
        ("distill", "threat_model method data"),
        ("rank", "method band candidates"),
        ("search", "space supernet search"),
        ("search", "search seeds"),  # a repeated one
        ("train", "architecture training"),
        ("study", "base space seeds analysis"),
    )
)
# Where a verb keeps its figures: a file, and the keys of each column in it.
_RECORDS: dict[str, tuple[str, dict[str, str]]] = {
    "run": ("summary.json", {"data": "dataset", "clean": "clean", "robust": "robust", "verdict": "verdict"}),
    "evaluate": ("evaluation.json", {"data": "dataset"}),
    "defend": ("defence.json", {}),
    "compress": ("compression.json", {"data": "dataset"}),
}
_TOP = re.compile(r"^([A-Za-z_]\w*):(.*)$", re.MULTILINE)


class RunRow(NamedTuple):
    """A run of a table. Accuracies are shares of test images (0..1); None: not measured, or not said by the folder."""

    folder: str
    verb: str  # empty where it is not known
    state: State
    name: str | None = None
    data: str | None = None
    seed: int | None = None
    clean: float | None = None
    robust: float | None = None  # worst case over the attacks
    verdict: str | None = None  # on the evaluation; of a search, on the search
    macs: int | None = None  # of an image
    seconds: float | None = None
    problem: str = ""  # of a broken one


NUMBERS = ("seed", "clean", "robust", "macs", "seconds")


def list_runs(
    root: Path | str = "results",
    *,
    verb: str | None = None,
    state: str | None = None,
    data: str | None = None,
    sort: str = "folder",
    parts: bool = False,
) -> list[RunRow]:
    """Return the runs in a folder, those in folders of runs too; the parts of a run (its model, its trials) if asked.

    `verb`, `state`, `data` keep the rows of this value. `sort` is a column; a minus before it sorts downwards, and rows
    without a value come last. Raises `ConfigError` for a folder that is not there, and for another column or state.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"{root}: is no folder; name one that holds runs, such as results")
    column = sort.removeprefix("-")
    for what, given, known in (
        ("sort", column, RunRow._fields),
        ("state", state, State.__args__),  # type: ignore[attr-defined]
        ("verb", verb, tuple(dict.fromkeys(name for name, _ in VERBS))),
    ):
        if given is not None and given not in known:
            raise ConfigError(
                f"{what}: got {given[:100]!r}; allowed: {', '.join(known)}{suggestion(given, known)}"
            )
    wanted = {
        key: value for key, value in (("verb", verb), ("state", state), ("data", data)) if value is not None
    }
    every = (row_of(folder) for folder in _run_folders(root, parts))
    rows = [row for row in every if all(getattr(row, key) == value for key, value in wanted.items())]
    there = [row for row in rows if getattr(row, column) is not None]
    there.sort(key=lambda row: (getattr(row, column), row.folder), reverse=sort.startswith("-"))
    return there + [row for row in rows if getattr(row, column) is None]


def runs(
    root: Path | str = "results",
    *,
    verb: str | None = None,
    state: str | None = None,
    data: str | None = None,
    sort: str = "folder",
    parts: bool = False,
) -> pandas.DataFrame:
    """Return `list_runs` of the same arguments as a DataFrame: a row a run, a column a field of `RunRow`.

    Missing numbers are NA. Raises `ConfigError` as `list_runs`, and without pandas.
    """
    try:
        import pandas
    except ImportError:
        raise ConfigError(
            "runs: pandas is not installed; pip install pandas (or 'robust-nas[study]', which needs it), or take "
            "list_runs(root), which returns the same rows as tuples"
        ) from None
    rows = list_runs(root, verb=verb, state=state, data=data, sort=sort, parts=parts)
    frame = pandas.DataFrame(rows, columns=list(RunRow._fields))
    return frame.astype({name: "Int64" if name in ("seed", "macs") else "Float64" for name in NUMBERS})


def row_of(folder: Path) -> RunRow:
    """Return the row of one run folder; whatever is wrong with it is in the row."""
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return RunRow(str(folder), "", "broken", problem=f"{CONFIG}: {error}")
    plain = {key: value.strip() for key, value in _TOP.findall(text)}
    verb = next((name for name, keys in VERBS if keys <= plain.keys()), "")
    row = RunRow(str(folder), verb, "unfinished", name=plain.get("name"), seed=_integer(plain.get("seed")))
    if not plain:
        return row._replace(state="broken", problem=f"{CONFIG}: has no keys")
    try:
        if is_running(folder):
            row = row._replace(state="running")
        elif is_finished(folder):
            row = row._replace(state="done")
        return row._replace(**_measured(folder, verb))
    except (RobustNASError, OSError) as error:
        return row._replace(state="broken", problem=str(error))


def is_running(folder: Path) -> bool:
    """Return whether a process works in the folder: it holds the lock."""
    try:
        with (folder / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that may be read
        return False
    return False


def _run_folders(root: Path, parts: bool = False) -> Iterator[Path]:
    """Yield the run folders in a folder, in the order of their names; a folder of runs is looked into.

    With `parts` a run is looked into as well.
    """
    try:
        if (root / CONFIG).is_file():
            if (root / LOCK).is_file():  # else a part of a run that was kept, no run
                yield root
            if not parts:
                return
        children = sorted(root.iterdir())
    except OSError:  # it may not be looked into; `row_of` says so
        yield root
        return
    for child in children:
        if child.is_dir() and not child.is_symlink() and not is_temporary(child):
            yield from _run_folders(child, parts)


def _measured(folder: Path, verb: str) -> dict[str, Any]:
    """Return the columns that the folder's records say. Raises `RobustNASError` for a damaged one."""
    found: dict[str, Any] = {}
    for file in (ENVIRONMENT, RESULT):
        if (folder / file).is_file():
            tree = read_json(folder / file)
            found |= _columns(
                tree, {"data": "dataset", "clean": "clean", "robust": "robust", "verdict": "verdict"}
            )
            found |= _columns(tree, {"macs": "macs", "seconds": "seconds", "seed": "seed"})
    file, keys = _RECORDS.get(verb, ("", {}))
    if file and (folder / file).is_file():
        tree = read_json(folder / file)
        found |= _columns(tree, {"macs": "macs", "seconds": "seconds", **keys})
    if verb == "search" and (folder / "verdict.json").is_file():
        found |= _columns(read_json(folder / "verdict.json"), {"verdict": "status"})
    for inner in ("evaluation", "model/evaluation"):  # of a training, of a defended model
        if verb in ("train", "defend", "compress", "distill") and (folder / inner / RESULT).is_file():
            tree = read_json(folder / inner / RESULT)
            found |= _columns(tree, {"clean": "clean", "robust": "robust", "verdict": "verdict"})
    return found


def _columns(tree: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return columns of a record: plain values of the right type alone."""
    found = {}
    for column, key in keys.items():
        value = tree.get(key)
        kind: tuple[type, ...] = (int, float) if column in NUMBERS else (str,)
        if isinstance(value, kind) and not isinstance(value, bool):
            found[column] = value
    return found


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def as_texts(rows: Sequence[RunRow], root: Path | str = "") -> list[list[str]]:
    """Return the cells of a table for people: accuracies in %, MACs in millions, paths as seen from `root`."""
    texts = []
    for row in rows:
        folder = Path(row.folder)
        place = str(folder.relative_to(root)) if root and folder.is_relative_to(root) else row.folder
        shares = ["" if value is None else f"{100 * value:.1f}" for value in (row.clean, row.robust)]
        macs = "" if row.macs is None else f"{row.macs / 1e6:.1f}"
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        seed = "" if row.seed is None else str(row.seed)
        words = row.verdict or ""
        texts.append([place, row.verb, row.state, row.data or "", seed, *shares, words, macs, seconds])
    return texts


HEADER = ("folder", "verb", "state", "data", "seed", "clean %", "robust %", "verdict", "M MACs", "seconds")


def remove_run(folder: Path | str) -> None:
    """Remove the folder of an unfinished run with all that is in it.

    Raises `RunExistsError` where it is no run, holds finished work or what no run wrote, or is where the caller is;
    `RunError` where a process works in it or in a run inside. Then nothing is removed.
    """
    given, folder = folder, Path(folder).resolve()
    if not ((folder / CONFIG).is_file() and (folder / LOCK).is_file()):
        raise RunExistsError(
            f"{given}: holds no {CONFIG} and {LOCK} of a run, so it is none and is not removed"
        )
    if folder in (Path.home(), Path.cwd(), *Path.cwd().parents):
        raise RunExistsError(f"{given}: is where you are, or above it, and is not removed")
    with contextlib.ExitStack() as locks:
        for path in folder.glob(f"**/{LOCK}"):
            try:
                fcntl.flock(locks.enter_context(path.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"{path.parent}: is not removed: {error.strerror}; a process may work in it"
                ) from None
        # Under the lock: it may have gone on since it was listed.
        finished = [*folder.glob("**/*.safetensors"), *folder.glob(f"**/{RESULT}")]
        for what, paths in (("finished work", finished), ("what no run wrote", list(foreign(folder)))):
            if paths:
                names = ", ".join(str(path.relative_to(folder)) for path in paths[:6])
                raise RunExistsError(f"{given}: holds {what}, and is not removed: {names}")
        shutil.rmtree(folder.rename(temporary_name(folder)))  # it loses its name at once

"""Where each verb writes where `--out` does not say it, and the model that a folder named by a user holds.

One rule, the same for a verb alone and within `run`:

- A job from a config, or on a module of the user's own, writes into `results/`, under the name of the config.
- A job on a model writes into the run folder of the model, under the name that `run` uses: the folder around `model/`
  or, where the model folder is no `model/` of a run, the model folder itself. What is there with other settings stays,
  and the new folder is next to it, with the settings in its name.

`--resume` finds the folder of the same settings again, or the one that it can extend.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from robust_nas.config import differences, expand_path, read_yaml, to_yaml_dict
from robust_nas.errors import CodeRefusedError, ConfigError, RunExistsError
from robust_nas.extension import ExtensibleJob, continued, placeless
from robust_nas.files import LOCK, is_empty
from robust_nas.records import RESULT
from robust_nas.run_folder import CONFIG, Mode

RESULTS = Path("results")  # where run folders go
MODEL, REFERENCE = "model", "reference"
MODEL_FILES = ("model.json", "model.safetensors")
MOST_SHOWN, DEPTH = 12, 3  # models that an error lists, folders in folders that they are looked for in
Job = TypeVar("Job", bound=ExtensibleJob)


class Written(dict[str, Any]):
    """The record of a job, and the `folder` that it is in."""

    def __init__(self, record: Mapping[str, Any], folder: Path) -> None:
        """Copy the record, and keep the folder next to it."""
        super().__init__(record)
        self.folder = folder


class Place(NamedTuple):
    """Where a verb writes: the name in `results/`, the name in the run folder of a model, and its second name."""

    in_results: str = ""  # `{name}` is the config's, `{method}` the method's
    of_model: str = ""
    second: str = ""  # what follows the name, with a hyphen, where another one is there; in words
    when: str = "with other settings"  # the second name is taken

    def in_words(self) -> str:
        """Return the place as a help text has it."""
        results = f"results/{self.in_results.format(name='NAME', method='METHOD')}"
        if not self.of_model:
            return results
        name = self.of_model.format(method="METHOD")
        words = [f"{name} in the model's run folder"]
        words += [f"{self.when} {name}-{self.second} next to it"] if self.second else []
        return "; ".join([*words, *([f"of a module {results}"] if self.in_results else [])])


PLACES: dict[str, Place] = {
    "run": Place("{name}"),
    "search": Place("{name}-search"),
    "train": Place("{name}-model"),
    "rank": Place("{name}-rank"),
    "distill": Place("{name}-{method}"),
    "study run": Place("{name}"),
    "compare": Place("{name}"),
    "evaluate": Place("{name}-evaluation", "evaluation", "SUITE-NORM-EPS-IMAGES"),
    "compress": Place("{name}-compressed", "compressed", "METHOD"),
    "defend": Place(of_model="defended", second="METHOD"),
    "export": Place(of_model="export"),
    "attack train": Place(of_model="{method}", second="N"),
    "attack run": Place(of_model="attack-{method}", second="N", when="a second time"),
}


def of_config(verb: str, out: Path | None, name: str, method: str = "") -> Path:
    """Return the folder of a job from the config `name`: `out`, or the place of the verb in `results/`."""
    return expand_path(out) if out else RESULTS / PLACES[verb].in_results.format(name=name, method=method)


def of_module(
    verb: str, job: Job, module: str, out: Path | None, name: str, mode: Mode, *, label: str
) -> tuple[Path, Job]:
    """Return the folder of a job from the config `name` on a `path.py:function`, and the job as seen from it.

    `label` says the settings in the name of a second folder.
    """
    from robust_nas.nets.user_module import known_digest, source_of

    path, function = source_of(module)

    def seen(folder: Path) -> Job:
        return job.model_copy(update={"model": f"{relative(path, folder)}:{function}"})

    usual = RESULTS / PLACES[verb].in_results.format(name=name)
    folder = expand_path(out) if out else _free_place([usual], seen, mode, label)
    found = seen(folder)
    digest = known_digest(folder, str(getattr(found, "digest", "")))
    return folder, found.model_copy(update={"digest": digest})


def of_model(
    verb: str, job: Job, model: Path, out: Path | None, mode: Mode, *, method: str = "", label: str = ""
) -> tuple[Path, Job]:
    """Return the folder of a job on the model in a folder, and the job with the model's place as seen from it.

    `label` says the settings in the name of a second folder. Raises `ConfigError` where `out` is the model's folder.
    """
    part = _plain(PLACES[verb].of_model.format(method=method))
    usual, earlier = run_folder_of(model) / part, (model / part, _next_to(model, part))

    def seen(folder: Path) -> Job:
        return job.model_copy(update={"model": relative(model, folder)})

    folder = expand_path(out) if out else _free_place([usual, *earlier], seen, mode, label)
    if folder.resolve() in (model.resolve(), *model.resolve().parents):
        raise ConfigError(f"{folder}: holds the model; {verb} needs a folder of its own, such as {usual}")
    return folder, seen(folder)


def of_files(verb: str, model: Path, method: str = "", *, again: bool = True) -> Path:
    """Return the folder of what is made of a model and is no run; one that is not there yet, unless `again`."""
    first = run_folder_of(model) / PLACES[verb].of_model.format(method=_plain(method))
    return first if again else next(_unused(first, ""))


def run_folder_of(model: Path) -> Path:
    """Return the run folder of a model folder, which may be given as `.`; the model folder itself where it is alone."""
    named = model.resolve() if model.name in ("", "..") else model
    above = named.absolute().parent
    inside = _is_run(above) or (above.name == REFERENCE and _is_run(above.parent))
    return named.parent if named.name == MODEL and inside else named


def model_in(place: Path | str, *, weights: bool = True) -> Path:
    """Return the model folder that a user's folder means: itself, or `model/` in it.

    A folder that holds other models is refused with `ConfigError`, which lists them; so is one with an architecture
    that is not trained, unless its `weights` are not asked for. Where there is nothing of a model, the folder is
    returned as it is, for what reads it to say so.
    """
    folder = expand_path(place)
    if _is_model(folder) or not folder.is_dir():
        return folder
    if _is_model(folder / MODEL):
        return folder / MODEL
    found = sorted(models_below(folder))
    if found:
        names = ", ".join(str(each) for each in found[:MOST_SHOWN])
        more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        raise ConfigError(
            f"{folder}: is no model folder and has no {MODEL}/; name one of the models in it: {names}{more}"
        )
    inner = next(
        (path for path in (folder, folder / "search") if (path / "architecture.yaml").is_file()), None
    )
    if weights and inner is not None and not (folder / "checkpoint.pt").is_file():
        raise ConfigError(
            f"{folder}: is no model folder: it holds an architecture that is not trained; train it with "
            f"robust-nas train RECIPE --architecture {inner}"
        )
    return folder


def models_below(folder: Path) -> Iterator[Path]:
    """Yield the model folders in a folder, at most `DEPTH` folders down; none in hidden folders."""
    for depth in range(1, DEPTH + 1):
        for path in folder.glob("/".join(["[!.]*"] * depth)):
            if _is_model(path):
                yield path


def relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, so that a folder of results can be moved as a whole."""
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODEL_FILES)


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (LOCK, RESULT))


def _free_place(usual: Sequence[Path], seen: Callable[[Path], ExtensibleJob], mode: Mode, label: str) -> Path:
    """Return the folder that holds the same settings; else, to resume, one that the job extends; else an unused one.

    `usual` is the first place of the verb, and those of earlier versions; `seen` gives the job for a folder.
    """
    first = usual[0]
    others = sorted(first.parent.glob(f"{glob.escape(first.name)}-*"))
    places = dict.fromkeys([first, *others, *usual])
    # Without a lock it is a copy inside another job, such as the evaluation of a compression: none to continue.
    taken = [folder for folder in places if _is_run(folder) and (folder / LOCK).is_file()]
    for folder in taken:
        if _has_settings(folder, seen(folder)):
            return folder
    if mode == "resume":
        near = [(changes, folder) for folder in taken if (changes := _added(folder, seen(folder)))]
        if near:
            return min(near, key=lambda each: each[0])[1]  # of equal ones the first
    return next(_unused(first, label))


def _next_to(model: Path, part: str) -> Path:
    named = model.resolve() if model.name in ("", "..") else model
    return named.with_name(f"{named.name}-{part}")


def _unused(first: Path, label: str) -> Iterator[Path]:
    """Yield the folders of a name and its label that are not there, or are empty."""
    second = first.with_name(f"{first.name}-{_plain(label)}") if label else first
    numbered = (second.with_name(f"{second.name}-{number}") for number in itertools.count(2))
    for path in itertools.chain(dict.fromkeys((first, second)), numbered):
        if not path.exists() or is_empty(path):
            yield path


def _plain(text: str) -> str:
    """Return a text as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:60]


def _has_settings(folder: Path, job: ExtensibleJob) -> bool:
    """Return whether a folder is of these settings, now or before it was extended; the model may have changed since."""
    try:
        stored = read_yaml(folder / CONFIG)
        wanted = _settings(job.asked())
        if _settings(placeless(stored)) in (wanted, _settings(placeless(to_yaml_dict(job)))):
            return True
        before = type(job).model_validate(stored)
    except (
        ConfigError,
        CodeRefusedError,
        ValidationError,
    ):  # damaged, of another verb, or of code not allowed
        return False
    return wanted in map(_settings, (before.asked(), *before.earlier()))


def _settings(job: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in job.items() if key not in ("digest", "surrogate_digests", "extended")
    }


def _added(folder: Path, job: ExtensibleJob) -> int:
    """Return how many keys of a folder's job differ in this one, which continues it; 0 where it does not."""
    try:
        stored = read_yaml(folder / CONFIG)
        continued(folder, job, stored)
    except (ConfigError, CodeRefusedError, RunExistsError):
        return 0
    return max(len(differences(placeless(stored), placeless(to_yaml_dict(job)))), 1)

"""Keep the folder of a study: a run folder whose config may grow, with a journal and a folder per trial.

    config.yaml  environment.json  journal.jsonl  trials/<id>/{trial.json, outcome.json, model/}
    analysis.json  table.csv  figures/  report.html  result.json

One driver works in it at a time (lock). More seeds, points or rules, and another budget of time, may be asked of a
study that exists; what decides its trials may not change. Stored configs and trials are read by today's defaults before
they are compared, so a key that a later version added makes no study another one and no trial run again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from robust_nas.config import (
    check,
    differences,
    existing_file,
    read_yaml,
    to_dict,
    to_yaml,
    to_yaml_dict,
)
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.extension import placeless
from robust_nas.files import LOCK, write_atomic, write_json
from robust_nas.records import ENVIRONMENT, RESULT, Shape, read_json
from robust_nas.run_folder import CONFIG, Mode, Run
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.run.journal import JOURNAL, Journal, latest, read_journal
from robust_nas.studies.run.trial import MEASURED, MODEL, OUTCOME, Trial
from robust_nas.training.losses import with_present_names

MAY_GROW = (
    "seeds",
    "space",
    "analysis",
    "guard",
    "threads",
    "device",
    "checkpoint_seconds",
    "figures",
    "inherited",
    "keep_models",
)
TRIALS, PLAN, INHERITED = "trials", "plan.json", "inherited.json"
CONTENT = "trial.json"
SCORES: Shape = {  # what is read of `inherited.json`
    "options": {"images": int},
    "scores": {str: {"clean": float, "robust": float, "images?": int, "chance?": float}},
}
PLANNED: Shape = {  # what is read of `plan.json`
    "reference": str,
    "seeds": [int],
    "points": [
        {
            "name": str,
            "arm": (str, None),
            "params": int,
            "macs": int,
            "factors": {str: (float, str)},
            "stages": [{"name": str, "params": int, "macs": int}],
            "rules": [{"rule": str, "holds": bool}],
            "epochs?": int,
            "passes?": float,
            "training_macs": float,
            "trials": [str],
        }
    ],
}


class StudyFolder(Run):
    """An opened study. Use as a context manager; errors as `Run`."""

    config: StudyConfig
    journal: Journal

    def __init__(self, folder: Path, config: StudyConfig, mode: Mode = "new") -> None:
        self._changed: list[str] = []
        super().__init__(folder, config, mode)
        try:
            self.journal = Journal(self.folder)
            concluded = [key for key in self._changed if key.startswith("analysis")]
            done = len(outcomes(self.folder)[0])
            if concluded and done:  # before the config: a kill in between says it twice rather than never
                self.journal.note_change(concluded, done)
            if self._changed:
                self.write(CONFIG, to_yaml(config))
        except BaseException:
            self.close()
            raise

    def _continue(self, before: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            known = check(StudyConfig, with_present_names(before), str(self.folder / CONFIG))
            stored: Mapping[str, Any] = to_yaml_dict(known)
        except ConfigError:
            stored = before  # of another version: the keys that differ are named
        wanted = to_yaml_dict(self.config)
        changed = [] if wanted == before else sorted(differences(placeless(stored), placeless(wanted)))
        refused = [key for key in changed if key.partition(".")[0] not in MAY_GROW]
        if refused:
            name = before.get("name")
            raise RunExistsError(
                f"{self.folder}: holds the study {name!r} with another config, which this one ({self.config.name!r}) "
                f"cannot continue; different: {', '.join(refused[:6])}. Only {', '.join(MAY_GROW)} may change; "
                "choose another folder with --out, or replace the study with --overwrite"
            )
        read_journal(self.folder)  # a journal of another version is refused before anything is written
        self._changed = changed
        return before

    @property
    def _goes_on(self) -> bool:
        return not self.finished or not {"seeds", "space"}.isdisjoint(self._changed)

    @property
    def _deciding(self) -> Mapping[str, Any]:
        return {key: value for key, value in to_dict(self.config).items() if key not in MAY_GROW}

    @property
    def _untouched(self) -> bool:
        """Return whether no trial was begun."""
        before = {CONFIG, ENVIRONMENT, LOCK, PLAN, JOURNAL, TRIALS}
        return not read_journal(self.folder) and before >= {child.name for child in self.folder.iterdir()}

    def __enter__(self) -> StudyFolder:
        return self

    def trial_folder(self, trial: str) -> Path:
        """Return the folder of a trial, which exists then."""
        path = self.folder / TRIALS / trial
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
        return path

    def record(self, name: str, trial: Trial) -> None:
        """Write what decides a trial into its folder, where that is not there yet."""
        path = self.trial_folder(name) / CONTENT
        if not path.is_file():
            write_json(path, to_dict(trial.nameless))

    def reopen(self) -> None:
        """Remove the mark of a finished study: more trials are to run."""
        (self.folder / RESULT).unlink(missing_ok=True)

    def close_trial(self, trial: str, outcome: Mapping[str, Any], seconds: float) -> None:
        """Write the outcome of a trial, then note in the journal that it is done."""
        data = (json.dumps(outcome, allow_nan=False) + "\n").encode()
        folder = self.trial_folder(trial)
        write_atomic(folder / OUTCOME, data)
        self.journal.add("done", trial, seconds=round(seconds, 3), digest=hashlib.sha256(data).hexdigest())
        if not self.config.keep_models:
            shutil.rmtree(folder / MODEL, ignore_errors=True)

    def close(self) -> None:
        """Close the journal and release the lock."""
        if hasattr(self, "journal"):
            self.journal.close()
        super().close()


def outcomes(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the outcomes of the done trials, and the last event of every other trial that was begun, by id.

    A trial whose outcome is not the one that the journal names is not done. Errors as `Journal`.
    """
    done, others = {}, {}
    for trial, event in latest(read_journal(folder)).items():
        outcome = _outcome(folder / TRIALS / trial / OUTCOME, event.get("digest"))
        if event["event"] == "done" and outcome is not None:
            done[trial] = {**outcome, "seconds": event["seconds"]}
        elif event["event"] == "done":
            others[trial] = {
                "event": "failed",
                "trial": trial,
                "reason": f"{OUTCOME} is missing, or not the one that was measured",
            }
        else:
            others[trial] = event
    return done, others


def names_of_trials(folder: Path, planned: Collection[str]) -> dict[str, str]:
    """Return the folder's name of every planned trial (an id) that it holds under another id.

    An id is the hash of a whole trial, in which a key that a later version added is one more. A trial in the folder is
    read by today's defaults; one that today's code refuses is left out.
    """
    done = outcomes(folder)[0]
    names: dict[str, str] = {}
    others = (path for path in (folder / TRIALS).glob("*/") if path.name not in planned)
    for path in sorted(others, key=lambda path: path.name in done):  # of two, the done one is taken
        try:
            tree = _content(path)
            if path.name in done:  # one that is trained further is compared with its own config, as written
                tree = with_present_names(tree)
            names[check(Trial, tree, str(path)).id] = path.name
        except (ConfigError, RunError, LookupError):
            continue
    return {
        trial: name
        for trial, name in names.items()
        if trial in planned and trial not in done and (name in done or not (folder / TRIALS / trial).exists())
    }


def _content(folder: Path) -> Any:
    """Return the tree of the trial in a folder; before `trial.json` there was, its model's config held it."""
    if (folder / CONTENT).is_file():
        return read_json(folder / CONTENT)
    return read_yaml(folder / MODEL / CONFIG)["trial"]


def _outcome(path: Path, digest: object) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return read_json(path, MEASURED) if hashlib.sha256(data).hexdigest() == digest else None


def read_plan(folder: Path) -> dict[str, Any]:
    """Return the tree of `plan.json`. Raises `RunError` where it is missing or damaged."""
    try:
        plan = read_json(folder / PLAN, PLANNED)
    except RunError as error:
        raise RunError(f"{error}; robust-nas study run --resume writes it again") from None
    if any(len(point["trials"]) != len(plan["seeds"]) for point in plan["points"]):
        raise RunError(f"{folder / PLAN}: is damaged; robust-nas study run --resume writes it again")
    return plan


def is_study(folder: Path) -> bool:
    """Return whether a study was begun in the folder."""
    return all(existing_file(folder / name) for name in (CONFIG, JOURNAL))

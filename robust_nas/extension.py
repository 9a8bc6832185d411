"""Jobs that can be extended: `--resume` may ask for more than before; what was done is kept.

A run folder is known by what its result depends on (`run_folder.py`). An `ExtensibleJob` says which changes of that
only add to what was done, and why others do not. Every extension is recorded in `config.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from robust_nas.config import Options, differences, read_yaml, to_dict, to_yaml_dict, tree_hash
from robust_nas.errors import CodeRefusedError, ConfigError, RunExistsError


class Extension(Options):
    """What a job was before it was extended: the hash of its config, and the keys that changed with their values."""

    config_hash: str
    before: dict[str, Any]


class ExtensibleJob(Options):
    """Base of the jobs that can be extended."""

    extended: tuple[Extension, ...] = Field(default=(), exclude_if=lambda extensions: not extensions)

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return the job that does what `before` did in `folder`, and what this one asks for; None: another job.

        Raise `RunExistsError` with the reason where a job of this kind cannot be extended so.
        """
        return None

    def again(self, before: Self, folder: Path) -> Self:
        """Return this job, which was asked for before an extension, with what `before` did since: it answers this too.

        A subclass whose extensions also replace something, such as a step that had not begun, keeps that as it is here.
        """
        return before

    def recipe_of(self, recipe: Options) -> Options:
        """Return the whole config that was asked for, with what this job does."""
        return recipe

    def continued(self, before: Self, folder: Path, config_hash: str) -> Self | None:
        """Return this job as it continues `before`, which the folder holds under that hash; None for another job.

        It is `before` itself where that answers this already, as it was asked for now or before an extension.
        """
        known = before.asked()
        if self.asked() == known:
            return before
        asked = self.again(before, folder) if self.asked() in before.earlier() else self
        job = asked.extension_of(before, folder)
        if job is None:
            return None
        new = job.asked()
        changed = {key: value for key, value in known.items() if value != new[key]}
        if not changed:
            return before
        extended = (*before.extended, Extension(config_hash=config_hash, before=changed))
        return job.model_copy(update={"extended": extended})

    def asked(self) -> dict[str, Any]:
        """Return the job as plain values, without its history, and without the place of the images."""
        return placeless({key: value for key, value in to_dict(self).items() if key != "extended"})

    def earlier(self) -> list[dict[str, Any]]:
        """Return the same of the job before each extension, the oldest first."""
        found, state = [], self.asked()
        for extension in reversed(self.extended):
            state = {**state, **extension.before}
            found.append(state)
        return found[::-1]

    def same_but(self, before: Self, *keys: str) -> bool:
        """Return whether this job differs from `before` in these keys alone."""
        one, other = self.asked(), before.asked()
        return all(one.get(key) == other.get(key) for key in (one.keys() | other.keys()) - {*keys})


def placeless(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with `data.path` null, in its sections too: images are known by their checksum."""
    found = {key: placeless(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    if isinstance(found.get("data"), dict) and "path" in found["data"]:
        found["data"]["path"] = None
    return found


def continued(folder: Path, job: Options, before: Mapping[str, Any]) -> ExtensibleJob | None:
    """Return the job as it continues the config `before` of the folder; None where it is the same, by today's defaults.

    Raises `RunExistsError` where it is another job.
    """
    wanted, stored, parsed = to_yaml_dict(job), before, None
    try:
        parsed = type(job).model_validate(before)
        stored = to_yaml_dict(parsed)
    except CodeRefusedError:
        if wanted != before:  # what it would be with that code is not known
            raise
    except (ValidationError, ConfigError):
        pass
    found = None
    if wanted not in (before, stored) and isinstance(job, ExtensibleJob) and isinstance(parsed, type(job)):
        found = job.continued(parsed, folder, tree_hash(before))
    if found is None and wanted not in (before, stored):
        changed = sorted(differences(placeless(stored), placeless(wanted)) - {"extended"})
        raise RunExistsError(
            f"{folder}: was started with another config and cannot be resumed with this one; "
            f"different: {', '.join(changed[:6])}. Use that config (and that version), start again "
            f"with --overwrite, or choose another folder with --out"
        )
    return found


def is_extension(job: Options | None, before: Mapping[str, Any]) -> bool:
    """Return whether the job that continues `before` asks for more than that."""
    return isinstance(job, ExtensibleJob) and len(job.extended) > len(before.get("extended") or ())


def is_extended(folder: Path) -> bool:
    """Return whether the job of a folder was extended."""
    path = folder / "config.yaml"
    return path.is_file() and bool(read_yaml(path).get("extended"))


def extends(path: Path, job: Options) -> bool:
    """Return whether `job` asks for more than the one whose config is at `path`, and can continue it.

    Raises `RunExistsError` where it is another job.
    """
    if not path.is_file():
        return False
    before = read_yaml(path)
    return is_extension(continued(path.parent, job, before), before)

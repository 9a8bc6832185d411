"""What the result of a run of all jobs depends on, and which of its steps may still change."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from robust_nas.compression import Compression
from robust_nas.config import Options, check, differences
from robust_nas.data import DataOptions
from robust_nas.errors import RunExistsError
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.extension import ExtensibleJob
from robust_nas.run_folder import CONFIG
from robust_nas.search import Strategy, SupernetOptions, strategy_field
from robust_nas.search.sampled.measured import COMPRESSED_ROBUST
from robust_nas.spaces import AnyArchitecture, CellSpace
from robust_nas.training import Training
from robust_nas.training.losses import with_present_names
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.more_evaluation import answered, extended, protocol_of
from robust_nas.workflows.network_size import NetworkSize
from robust_nas.workflows.reference import REFERENCE, reference_of
from robust_nas.workflows.search_job import SearchJob
from robust_nas.workflows.train import more_epochs


class RunJob(ExtensibleJob):
    """What the result of a run depends on: the run config without its settings of the machine and its figures."""

    name: str
    seed: int
    data: DataOptions
    space: CellSpace  # as its file had it
    supernet: SupernetOptions
    search: Annotated[Strategy, strategy_field()]
    network: NetworkSize
    training: Training
    evaluation: EvaluationOptions
    steps: tuple[Step, ...]  # the attacks as the suite's file had them
    compression: Compression | None
    batch_norm: str
    reference: AnyArchitecture | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return the record of the run that a config asks for."""
        keys = cls.model_fields.keys() - {"space", "search", "steps", "extended", "reference"}
        shared = {key: getattr(config, key) for key in keys}
        own = {
            "search": config.search.alone,
            "steps": config.evaluation.steps,
            "reference": reference_of(config),
        }
        return cls(space=config.space.load(), **own, **shared)

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return the job with changes to the steps that have not begun; the last one that has may be extended."""
        changed = {key for key in self.asked() if not self.same_but(before, *(self.asked().keys() - {key}))}
        begun, job = self._begun(folder), self
        for part in begun:
            blocked = sorted(changed & self.parts()[part])
            inside, last = folder / part, part == begun[-1]
            if last and part == "model" and blocked == ["training"]:
                blocked = [] if more_epochs(self.training, before.training, inside) else blocked
            if last and part == "evaluation" and {*blocked} <= {"evaluation", "steps"}:
                known = (before.evaluation, before.steps)
                found = extended((self.evaluation, self.steps), known, inside)
                if found is not None:
                    job, blocked = self.model_copy(update={"evaluation": found[0], "steps": found[1]}), []
            if blocked:
                old, new = ({key: job.asked()[key] for key in blocked} for job in (before, self))
                keys = differences(old, new)
                raise RunExistsError(
                    f"{inside}: was made with another config, and what it depends on can no longer change; "
                    f"different: {', '.join(sorted(keys)[:6])}. Use the config that the run was started with, start "
                    "again with --overwrite, or choose another folder with --out"
                )
        return job

    def again(self, before: Self, folder: Path) -> Self:
        """Return this job with what was added to the steps that have begun; what was replaced is as it is here."""
        begun = self._begun(folder)
        found: dict[str, Any] = {}
        with contextlib.suppress(RunExistsError):  # it was replaced
            if "model" in begun and more_epochs(before.training, self.training, folder):
                found["training"] = before.training
        now = (before.evaluation, before.steps)
        if "evaluation" in begun and (
            grown := answered((self.evaluation, self.steps), now, folder / "evaluation")
        ):
            found["evaluation"], found["steps"] = grown
        if "compressed" in begun and self.compression is None:
            found["compression"] = before.compression
        return self.model_copy(update=found)

    def _begun(self, folder: Path) -> list[str]:
        """Return the steps that have begun in a run folder, in their order."""
        return [part for part in self.parts() if (folder / part / CONFIG).is_file()]

    def recipe_of(self, recipe: Options) -> Options:
        """Return the whole config with the epochs and the protocol of this job, and with its compression."""
        evaluation = protocol_of(self.evaluation, self.steps)
        return recipe.model_copy(
            update={"training": self.training, "evaluation": evaluation, "compression": self.compression}
        )

    def parts(self) -> dict[str, set[str]]:
        """Return the keys that the result of each step depends on, the steps in their order."""
        used = {"training": self.search.trains, "compression": COMPRESSED_ROBUST in self.search.measured}
        search = set(SearchJob.model_fields) - {key for key, is_used in used.items() if not is_used}
        model = search | {"training"}
        judged = {"evaluation", "steps"}
        evaluation = model | judged
        # The search does not matter to a reference, of which the compression then is.
        known = {"name", "seed", "data", "training", "batch_norm", "network", "reference"}
        made_from = evaluation if self.reference is None else known | judged
        return {
            "search": search,
            "model": model,
            "evaluation": evaluation,
            f"{REFERENCE}/model": known,
            f"{REFERENCE}/evaluation": known | judged,
            "compressed": made_from | {"compression", "reference"},
        }

    @model_validator(mode="before")
    @classmethod
    def _of_whole_config(cls, tree: Any) -> Any:
        """Read the record of an earlier version, which was the whole config."""
        if isinstance(tree, Mapping) and "schema_version" in tree:
            return dict(cls.of(check(RunConfig, with_present_names(tree), "config.yaml")))
        return tree

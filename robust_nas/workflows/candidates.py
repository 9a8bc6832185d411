"""Train the candidates of a sampled search by the run's recipe, each in a run folder inside the search's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from robust_nas.config import Options
from robust_nas.records import RESULT, Shape, read_json
from robust_nas.run_folder import CHECKPOINT, Run
from robust_nas.search import Trained
from robust_nas.search.sampled.measured import COMPRESSED_ROBUST
from robust_nas.spaces import AnyArchitecture, CellArchitecture
from robust_nas.training import Training
from robust_nas.workflows.candidate_measures import compressed_robust
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext
from robust_nas.workflows.untrained import untrained_network

if TYPE_CHECKING:
    from robust_nas.data import Images


COMPRESSED = "compressed"  # folder inside that of a candidate, while it is compressed


class CandidateRecipe(Training):
    """A recipe without the keys that a short training replaces: what candidates depend on."""

    replaced: ClassVar[tuple[str, ...]] = ("epochs", "validate_from", "validate_every")

    @classmethod
    def of(cls, training: Training) -> Self:
        """Return that part of a run's recipe."""
        return cls(**{key: getattr(training, key) for key in cls.model_fields if key not in cls.replaced})

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        return self  # not by epochs that are not its own: each candidate's recipe is asked

    @model_serializer(mode="wrap")
    def _leave_defaults_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree = super()._leave_defaults_out(handler)
        return {key: value for key, value in tree.items() if key not in self.replaced}


class CandidateJob(Options):
    """What a candidate was trained from; its folder lies in that of its search, whose config holds the rest."""

    architecture: AnyArchitecture
    training: Training


@dataclass(frozen=True)
class CandidateTraining:
    """Trains the candidates of a sampled search by the run's recipe, each in a run folder inside the search's."""

    folder: Path  # of all candidates
    config: RunConfig
    context: JobContext

    def __call__(
        self, architecture: CellArchitecture, images: Images, validation: Images, epochs: int
    ) -> Trained:
        """Return the accuracies on `validation` after the last epoch; a candidate is trained once."""
        from robust_nas.training.loop import train

        config, context = self.config, self.context
        replaced = {"epochs": epochs, "validate_from": epochs - 1, "validate_every": 1}
        recipe = {key: getattr(config.training, key) for key in Training.model_fields}
        options = Training(**{**recipe, **replaced})  # so that hooks refuse too few epochs
        job = CandidateJob(architecture=architecture, training=options)
        folder = self.folder / architecture.name
        wants = COMPRESSED_ROBUST in config.search.measured
        with Run(folder, job, "resume") as run:
            if not run.finished:
                network = untrained_network(architecture, options, context, config.seed)
                found = train(
                    run,
                    network,
                    images,
                    validation,
                    options,
                    config.data.augment,
                    seed=config.seed,
                    checkpoint_seconds=config.checkpoint_seconds,
                )
                compressed: dict[str, float | None] = {}
                if wants:
                    inside = (config, context, architecture, found.state, (images, validation))
                    compressed[COMPRESSED_ROBUST] = compressed_robust(*inside, folder / COMPRESSED)
                run.finish({"clean": found.clean, "robust": found.robust, **compressed}, [])
                (folder / CHECKPOINT).unlink()
            shutil.rmtree(folder / COMPRESSED, ignore_errors=True)  # its networks have served
            more: Shape = {COMPRESSED_ROBUST: (float, None)} if wants else {}
            result = read_json(folder / RESULT, {"clean": float, "robust": float, **more})
        return Trained(result["clean"], result["robust"], {key: result[key] for key in more})

"""Evaluate the candidates of a sampled search in the workers of an engine; and the context that each of them gets.

A worker reads config and images once. What a candidate's training leaves is in `candidates/<name>` of the search, with
and without an engine: a search may be resumed on another one. What else an evaluator writes in a worker is gone
afterwards.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_nas.config import check, to_dict
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import DataError, RunError
from robust_nas.execution import RunTasks, Task
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.search import Scored, SearchContext
from robust_nas.search.sampled.measured import LATENCY
from robust_nas.search.strategy import EvaluateElsewhere, finite
from robust_nas.spaces import CellArchitecture, CellSpace, Size, architecture_from_text, has_cells
from robust_nas.user_code import allow_code, allowed_files
from robust_nas.workflows.candidate_measures import MEASUREMENTS, CandidateLatency
from robust_nas.workflows.candidates import CandidateTraining
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, load_context

FUNCTION = "robust_nas.workflows.candidate_tasks:evaluate_candidate"
CANDIDATES = "candidates"


@dataclass(frozen=True)
class CandidateTasks:
    """Hands candidates to the workers of an engine, one task each."""

    run: RunTasks
    config: RunConfig
    folder: Path  # of all candidates
    device: str
    checksum: str  # of the dataset here

    def __call__(self, tasks: Sequence[tuple[CellArchitecture, int | None]]) -> Iterator[tuple[int, Scored]]:
        """Yield the place of every task with its score. Raises `RunError` for one that failed."""
        places = {candidate.name: place for place, (candidate, _) in enumerate(tasks)}
        self.folder.mkdir(exist_ok=True)
        shared = {
            "config": to_dict(self.config.model_copy(update={"device": self.device})),
            "code": [str(path) for path in allowed_files()],
            "checksum": self.checksum,
        }
        made = [
            Task(
                candidate.name,
                FUNCTION,
                {**shared, "candidate": candidate.to_yaml(), "rung": rung},
                self.folder / candidate.name,
            )
            for candidate, rung in tasks
        ]
        for end in self.run(made, lambda *_: None):
            if end.result is None:
                error = end.error or {"type": "unknown", "message": ""}
                raise RunError(
                    f"{self.folder / end.id}: {error['type']}: {error['message'][:2000]}; continue with --resume"
                )
            yield places[end.id], Scored(end.result["score"], end.result["measured"])


def evaluate_candidate(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return score and measured numbers of the candidate in `payload`; `folder` is the candidate's.

    Raises `DataError` where the worker has other images than the search.
    """
    with allow_code(payload["code"]):
        config, context = _loaded(json.dumps(payload["config"]))
        if context.dataset.checksum != payload["checksum"]:
            raise DataError(
                f"{context.dataset.name} holds other images where the candidate is evaluated than here"
            )
        candidate = architecture_from_text(payload["candidate"], "a candidate")
        with tempfile.TemporaryDirectory() as own, Run(Path(own) / "run", config) as run:
            search = context_of_search(run, config, config.space.load(), context, folder.parent)
            evaluator = config.search.evaluator  # type: ignore[attr-defined] # of a sampled strategy
            assert has_cells(candidate)  # noqa: S101 - the search wrote it
            scored = evaluator.at_rung(payload["rung"]).evaluate(candidate, search)
        return {
            "score": finite(scored.score),
            "measured": {key: finite(value) for key, value in scored.measured.items()},
        }


def prepare(payload: dict[str, Any]) -> None:
    """Import what a candidate needs and read the images, for all workers that are then forked."""
    import robust_nas.nets
    import robust_nas.training.loop  # noqa: F401

    if not payload["code"]:  # a user's own code may touch a GPU
        _loaded(json.dumps(payload["config"]))


@functools.lru_cache(maxsize=2)
def _loaded(config: str) -> tuple[RunConfig, JobContext]:
    """Return config and images, read once by a worker that evaluates many candidates."""
    checked = check(RunConfig, json.loads(config), "the config of the search")
    return checked, load_context(checked)


def context_of_search(
    run: Run,
    config: RunConfig,
    space: CellSpace,
    context: JobContext,
    candidates: Path,
    *,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
    elsewhere: EvaluateElsewhere | None = None,
) -> SearchContext:
    """Return what a search, or an evaluator of one in a worker, gets; candidates are trained in that folder."""
    mean, std = context.normalisation
    latency = None
    if LATENCY in config.search.measured:
        options = config.search.latency  # type: ignore[attr-defined] # of a sampled strategy
        latency = CandidateLatency(run.folder / MEASUREMENTS, options, context)
    return SearchContext(
        run=run,
        space=space,
        images=context.images_on_device,
        classes=context.dataset.classes,
        mean=mean,
        std=std,
        name=config.name,
        seed=config.seed,
        augmentation=config.data.augment,
        network=network_size(config, space),
        execution=config.supernet.execution,
        checkpoint_seconds=config.checkpoint_seconds,
        progress=progress,
        ranks=ranks,
        synchronise=config.batch_norm == "synchronised",
        train=CandidateTraining(candidates, config, context),
        latency=latency,
        elsewhere=elsewhere,
    )


def network_size(config: RunConfig, space: CellSpace) -> Size:
    """Return depth and width of the final network."""
    return Size(
        cells=config.network.cells or space.network.cells,
        channels=config.network.channels or space.network.channels,
    )

"""What a search is known by in its folder, once or for several seeds, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from robust_nas.compression import Compression
from robust_nas.config import Count, Options, check, read_yaml
from robust_nas.data import DataOptions
from robust_nas.errors import RunExistsError
from robust_nas.extension import ExtensibleJob
from robust_nas.run_folder import CONFIG, Mode
from robust_nas.search import Strategy, SupernetOptions, strategy_field
from robust_nas.search.sampled.measured import COMPRESSED_ROBUST
from robust_nas.spaces import CellArchitecture, CellSpace
from robust_nas.workflows.candidates import CandidateRecipe
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.network_size import NetworkSize


@dataclass(frozen=True)
class SearchResult:
    """A finished search: where it is, what it found, and the record of `result.json`."""

    folder: Path
    architecture: CellArchitecture
    record: dict[str, Any]
    controls: dict[str, Any] | None = None  # the content of `controls.json`, where the config asks for it
    verdict: dict[str, Any] | None = None  # the content of `verdict.json`


class SearchJob(ExtensibleJob):
    """What the result of a search depends on: sections of the run config, and the space as its file had it."""

    name: str
    seed: int
    data: DataOptions
    space: CellSpace
    supernet: SupernetOptions
    search: Annotated[Strategy, strategy_field()]
    network: NetworkSize
    batch_norm: str
    training: CandidateRecipe | None  # of a strategy that trains its candidates
    # Of a strategy that compresses them.
    compression: Compression | None = Field(default=None, exclude_if=lambda compression: compression is None)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return the record of the search that a run config asks for."""
        keys = cls.model_fields.keys() - {
            "space",
            "search",
            "network",
            "training",
            "compression",
            "extended",
        }
        shared = {key: getattr(config, key) for key in keys}
        training = CandidateRecipe.of(config.training) if config.search.trains else None
        compression = config.compression if COMPRESSED_ROBUST in config.search.measured else None
        own = {
            "search": config.search.alone,
            "network": config.network.alone,
            "training": training,
            "compression": compression,
        }
        return cls(space=config.space.load(), **own, **shared)

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return None: a search is not extended. Raise `RunExistsError` for other short trainings."""
        refuse_other_trainings(self, before, folder)
        return None


class SeedsJob(ExtensibleJob):
    """What the result of a repeated search depends on."""

    search: SearchJob
    seeds: Count

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return the job with more seeds."""
        if self.seeds < before.seeds:
            raise RunExistsError(
                f"{folder}: seeds: got {self.seeds}, it has {before.seeds}; a repeated search can be given more, "
                "not fewer: choose another folder with --out"
            )
        refuse_other_trainings(self.search, before.search, folder)
        return self if self.same_but(before, "seeds") else None


def caption_of(config: RunConfig, dataset: str, images: int | None, seed: int) -> str:
    """Return what figures of a search of one seed say of it; an earlier version did not record the images."""
    searched = dataset if images is None else f"{dataset}, {images} images"
    return f"{config.name}: search on {searched}, {config.search.describe()}, seed {seed}"


def seeds_asked(config: RunConfig, folder: Path, mode: Mode, seeds: int | None) -> int:
    """Return the number of seeds: what is asked for, else `search.seeds`.

    A search that is continued keeps its own number, and gets more where `search.seeds` is larger; one of a single seed
    cannot (`refuse_other_kind`).
    """
    if seeds is not None:
        return seeds
    if mode == "resume" and (folder / CONFIG).is_file():
        return max(seeds_of(folder), config.search.seeds)
    return config.search.seeds


def seeds_of(folder: Path) -> int:
    """Return how many seeds the search in a folder is repeated with; 1 where the folder does not say."""
    path = folder / CONFIG
    seeds = read_yaml(path).get("seeds", 1) if path.is_file() else 1
    return check(_Seeds, {"seeds": seeds}, str(path)).seeds


def refuse_other_kind(folder: Path, seeds: int) -> None:
    """Raise `RunExistsError` for one seed where the search is repeated with several, and the other way round."""
    if not (folder / CONFIG).is_file():
        return
    had = seeds_of(folder)
    if (had > 1) != (seeds > 1):
        raise RunExistsError(
            f"{folder}: seeds: got {seeds}, it has {had}; a search of one seed has another folder than a repeated one, "
            f"which may be given more: choose another folder with --out, or continue it with --seeds {had}"
        )


def refuse_other_trainings(asked: SearchJob, before: SearchJob, folder: Path) -> None:
    """Raise `RunExistsError` where only `search.short_trainings` differs, and the recipe that they need."""
    wanted, had = (getattr(one.search, "short_trainings", 0) for one in (asked, before))
    key = {"short_trainings": had}
    same = asked.model_copy(
        update={"search": asked.search.model_copy(update=key), "training": before.training}
    )
    if wanted != had and same.same_but(before):
        raise RunExistsError(
            f"{folder}: search.short_trainings: got {wanted}, it has {had}; a search that has begun keeps its number, "
            "because the supernet is measured at its end: search again in another folder with --out"
        )


def refuse_more_seeds(folder: Path, asked: int) -> None:
    """Raise `RunExistsError` for more seeds than the search of the run in `folder` has, where its model has begun.

    More seeds may find another architecture, and what was trained, attacked and compressed would not be of it.
    """
    had = seeds_of(folder / "search")
    if (folder / "model" / CONFIG).is_file() and asked > had:
        raise RunExistsError(
            f"{folder}: search.seeds: got {asked}, its search has {had}; more seeds may find another architecture, and "
            f"the model of this one has begun: choose another folder with --out, or continue it with search.seeds={had}"
        )


class _Seeds(Options):
    seeds: Count

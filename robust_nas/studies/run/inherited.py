"""Score cell architectures by the weights that they inherit from an adversarially trained supernet.

A sub-network (`nets/inherited.py`) has the supernet's own number of cells and channels, for every size of the
architecture: the genotype is scored. Its batch norm statistics are re-estimated on `BATCHES` batches of training images
before it is scored. Scores rank architectures among themselves; they are no accuracies of trained networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from robust_nas.attacks import Attack
from robust_nas.checkpoints import read_checkpoint
from robust_nas.config import check, read_yaml
from robust_nas.errors import ArchitectureError, CheckpointError, CodeRefusedError, ConfigError
from robust_nas.run_folder import CHECKPOINT, CONFIG, RECIPE, Progress, is_finished, silent
from robust_nas.spaces import CellArchitecture, CellSpace
from robust_nas.training.losses import with_present_names
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, load_context, refuse_other_images
from robust_nas.workflows.search import build_supernet
from robust_nas.workflows.search_job import SearchJob

if TYPE_CHECKING:
    from robust_nas.nets import Supernet
    from robust_nas.nets.supernet import SupernetCell

BATCHES = 8  # of training images, for the batch norm statistics of a sub-network
BATCH_SIZE = 128


class FinishedSearch(NamedTuple):
    """What a supernet was searched with."""

    config: RunConfig
    space: CellSpace


class InheritedScore(NamedTuple):
    """Accuracies (0..1) of a sub-network on `images` images of the validation split."""

    name: str
    clean: float
    robust: float
    images: int
    chance: float  # of these images


def inherited_scores(
    search_folder: Path,
    architectures: Sequence[CellArchitecture],
    *,
    attack: Attack,
    images: int,
    seed: int,
    progress: Progress = silent,
) -> list[InheritedScore]:
    """Return the score of each architecture, in order, by the supernet of a finished search.

    At most `images` images of the search's validation split are used, as many of each class as of any other, chosen by
    `seed`, as are the attack's draws and the images that the batch norm statistics come from: the same for all.

    Raises `CheckpointError` for a folder that holds no finished search of this package's own, `ArchitectureError` for
    an architecture of another space, `DataError` where the images are not those of the search.
    """
    import torch

    from robust_nas.data.splits import balanced
    from robust_nas.evaluation import correctness
    from robust_nas.evaluation.accuracy import chance_of
    from robust_nas.nets.inherited import estimate_statistics, sub_network

    search = refuse_unscorable(search_folder, architectures)
    context = load_context(search.config)
    refuse_other_images(search_folder, context.dataset)
    training, validation = context.images, context.validation
    if images < context.dataset.classes:
        raise ConfigError(f"images: got {images}; at least {context.dataset.classes} are needed, one a class")
    judged = validation.subset(balanced(validation.labels, images, seed)).to(context.device)
    calibration = training.draw(BATCHES * BATCH_SIZE, seed).to(context.device)
    supernet = _supernet(search_folder, search, context).to(context.device)
    scores = []
    for done, architecture in enumerate(architectures, start=1):
        network = sub_network(supernet, architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        estimate_statistics(network, calibration, BATCH_SIZE)
        generator = torch.Generator(context.device).manual_seed(seed)
        found = correctness(network, judged, attack, generator, batch_size=BATCH_SIZE)
        clean, robust = found.accuracies
        chance = chance_of(judged.labels, context.dataset.classes)
        scores.append(InheritedScore(architecture.name, clean, robust, len(judged), chance))
        size = f"{len(supernet.cells)} cells, {cast('SupernetCell', supernet.cells[0]).channels} channels"
        progress("inherited", done, len(architectures), f"{architecture.name} at the supernet's {size}")
    return scores


def refuse_unscorable(
    search_folder: Path,
    architectures: Sequence[CellArchitecture],
    images: int | None = None,
    classes: int = 0,
) -> FinishedSearch:
    """Return a search whose supernet can score these architectures on `images` images. Errors as above."""
    search = _finished(search_folder)
    for architecture in architectures:
        refuse_other_space(architecture, search.space, str(search_folder))
    if images is not None and images < classes:
        raise ConfigError(f"images: got {images}; at least {classes} are needed, one a class")
    return search


def _finished(folder: Path) -> FinishedSearch:
    """Return the search in a folder, also of versions before 0.2, which had one file for config and space."""
    path = folder / CONFIG
    if not path.is_file() or not is_finished(folder):
        raise CheckpointError(f"{folder}: holds no finished search; name the folder of `robust-nas search`")
    tree = with_present_names(read_yaml(path))
    if "seeds" in tree:
        raise CheckpointError(f"{folder}: holds several searches; name one of them, such as seed-0 in it")
    if set(tree) == set(FinishedSearch._fields):
        space = check(CellSpace, tree["space"], f"{path}: space")
        config = check(RunConfig, tree["config"], f"{path}: config")
    else:
        space = _searched_space(tree, path)
        recipe = folder / RECIPE
        config = check(RunConfig, with_present_names(read_yaml(recipe)), str(recipe))
    strategy = config.search
    if not strategy.shares_weights:
        raise CheckpointError(
            f"{folder}: was searched by {strategy.label}, which leaves no supernet of ours; name a search by dsara"
        )
    return FinishedSearch(config, space)


def _searched_space(tree: Any, path: Path) -> CellSpace:
    """Return the space of a search's record. Raises `CheckpointError` for any other config."""
    try:
        return check(SearchJob, tree, str(path)).space
    except CodeRefusedError:
        raise
    except ConfigError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path.parent}: was not made by a search of this version; name the folder of `robust-nas search` ({first})"
        ) from None


def refuse_other_space(architecture: CellArchitecture, space: CellSpace, where: str) -> None:
    """Raise `ArchitectureError` unless the space of the search in `where` contains the genotype."""
    problem = space.mismatch(architecture)
    if problem is not None:
        raise ArchitectureError(
            f"{architecture.name}: {problem}; the search in {where} was of space {space.name!r}"
        )


def _supernet(folder: Path, search: FinishedSearch, context: JobContext) -> Supernet:
    """Return the supernet with the weights that its search ended with."""
    state = read_checkpoint(folder / CHECKPOINT)
    supernet = cast("Supernet", build_supernet(search.config, search.space, context))
    try:
        supernet.load_state_dict(state["supernet"])
    except (LookupError, RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CHECKPOINT}: does not fit the supernet: {error}") from None
    return supernet

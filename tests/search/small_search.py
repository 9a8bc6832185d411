"""A small space, images, and strategies in the context of a search: what the tests of this room share."""

import torch
from cases import small_space

from robust_nas.attacks import FGSMRS
from robust_nas.data import Augment, Images
from robust_nas.run_folder import Run
from robust_nas.search import SearchContext, Trained, run_strategy
from robust_nas.spaces import Size

CLASSES = 4
SPACE = small_space()
SMALL = {"cells": 3, "channels": 2}
ONE_SHOT = {**SMALL, "epochs": 2, "batch_size": 8, "attack": FGSMRS(eps=0.1, keep="last")}


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def images(count=32):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % CLASSES)


def trained(architecture, images, validation, epochs):
    """Stands for a training: a number that differs between architectures."""
    convolutions = sum(cell.operations().count("sep_conv_3x3") for cell in architecture.genotype)
    return Trained(clean=0.5, robust=(convolutions + epochs) / 100)


def context(run, **changes):
    values = {
        "run": run,
        "space": SPACE,
        "images": images(),
        "classes": CLASSES,
        "mean": (0.0,),
        "std": (1.0,),
        "name": "found",
        "seed": 3,
        "augmentation": Augment(crop=1),
        "network": Size(cells=3, channels=4),
        "checkpoint_seconds": 0.0,
        "train": trained,
    }
    return SearchContext(**{**values, **changes})


def searched(folder, strategy, *, mode="new", stop_at=None, **changes):
    """The outcome and the records of a strategy's search, which is killed after step or candidate `stop_at`."""

    def progress(job, done, total, note=""):
        if done == stop_at:
            raise Stopped

    with Run(folder, strategy, mode) as run:
        outcome = run_strategy(strategy, context(run, progress=progress, **changes))
        return outcome, run.records()


def found(outcome):
    """All of an outcome but the seconds."""
    return outcome.architecture, outcome.edge_weights, outcome.sources, outcome.last, outcome.fitness

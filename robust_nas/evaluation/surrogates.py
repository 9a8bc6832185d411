"""The surrogates of an evaluation: the models of other folders, on which its transfer attacks are made.

They are refused before anything is attacked, and an evaluation is known by their digests and not by their paths alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from robust_nas.config import expand_path
from robust_nas.errors import AttackError
from robust_nas.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from robust_nas.nets import Model


def read_surrogates(options: EvaluationOptions) -> dict[str, Model]:
    """Return the models that attacks and checks are transferred from, by folder.

    Raises `CheckpointError` for a folder without a model.
    """
    from robust_nas.nets import read_model

    own = (step.attack.model_folders() for step in options.steps)
    return {
        folder: read_model(expand_path(folder)) for folder in dict.fromkeys(chain(options.surrogates, *own))
    }


def digests(surrogates: Mapping[str, Model]) -> tuple[str, ...]:
    """Return the digests of everything that decides the surrogates' answers, in their order."""
    return tuple(model.digest for model in surrogates.values())


def refuse_misfits(surrogates: Mapping[str, Model], shape: tuple[int, ...], classes: int) -> None:
    """Raise `AttackError` for a surrogate that does not take images of `shape` (C, H, W), or has fewer classes."""
    for folder, model in surrogates.items():
        found = model.description
        if found.input_shape != shape or len(found.class_names) < classes:
            raise AttackError(
                f"surrogate {folder}: takes images of shape {found.input_shape} and tells "
                f"{len(found.class_names)} classes; these are {shape} of {classes}"
            )

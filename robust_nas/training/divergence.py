"""When to stop: a loss, a gradient norm or a weight that is NaN, infinite or absurdly large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from robust_nas.errors import DivergenceError

MAX_LOSS = 1e4  # cross-entropy far beyond anything that training recovers from


def remedy_of(key: str) -> str:
    """Return what may help a training whose learning rate is at this key."""
    return f"A smaller {key} or a training.clip_norm may help"


REMEDY = remedy_of("training.learning_rate")  # of a training by its recipe


def refuse_divergence(values: Mapping[str, float | None], where: str, remedy: str) -> None:
    """Raise `DivergenceError` for the first named value that is NaN or larger than any sound one; None is skipped."""
    for name, value in values.items():
        if value is not None and not abs(value) <= MAX_LOSS:  # written so that NaN fails it too
            raise DivergenceError(
                f"{where}: diverged, {name} is {value:.4g}; the last good checkpoint stays. {remedy}"
            )


def refuse_broken_weights(modules: Iterable[nn.Module], where: str, remedy: str) -> None:
    """Raise `DivergenceError` where a parameter or buffer is NaN or infinite.

    Call it before a checkpoint is written: a step may break the weights, which only the next loss
    would show.
    """
    for module in modules:
        named = [(name, t) for name, t in module.state_dict().items() if t.is_floating_point()]
        finite = torch.stack([tensor.isfinite().all() for _, tensor in named]).tolist()  # one synchronisation
        for (name, _), sound in zip(named, finite, strict=True):
            if not sound:
                raise DivergenceError(
                    f"{where}: diverged, {name} holds NaN or infinite values; the last good checkpoint stays. {remedy}"
                )

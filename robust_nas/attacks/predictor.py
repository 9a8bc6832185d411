"""What is attacked and judged: a module with the rule by which its outputs become an answer.

    deterministic  logits f(x)
    random         log of the mean softmax over S forward passes, each with fresh draws: log 1/S sum_s p_s(x)
    abstaining     the last logit means "rejected"; an answer is right when it is the label or a rejection

An attack on a random predictor averages `eot` passes in the same way, so that it follows the gradient of the
inference rule (Athalye et al., 2018). An abstaining predictor with K classes gives K + 1 logits; for an example
of label y it is attacked as the K-class problem in which z_y is max(z_y, z_rejected): the attack wins with a
wrong and accepted input alone (the extra class is Carlini and Wagner's, 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.defences import Defended
from robust_nas.errors import AttackError


class FunctionModule(nn.Module):
    """A plain function of images as a module: without parameters, and with a mode that decides nothing."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return what the function gives for images `[B, C, H, W]`."""
        return self.function(x)


def as_module(model: Any) -> nn.Module:
    """Return a module as it is, and any other function of images as a `FunctionModule`.

    Raises `AttackError` for what cannot be called, and for a class, which would be built from the images.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type):
        raise AttackError(f"model: got the class {model.__name__}; an instance of it is needed")
    if not callable(model):
        raise AttackError(
            f"model: got {type(model).__name__}; a torch module, or a function from images to logits, is needed"
        )
    return FunctionModule(model)


def own_samples(model: nn.Module) -> int | None:
    """Return the forward passes of one answer that a network declares by `inference_samples`; None where it does not.

    Raises `AttackError` for another value than a number.
    """
    found = getattr(model, "inference_samples", None)
    if found is not None and type(found) is not int:
        raise AttackError(
            f"{type(model).__name__}.inference_samples: got {str(found)[:200]}; a number of passes, or None, is needed"
        )
    return found


class Predictor(nn.Module):
    """A module with its inference rule; `forward` gives the logits `[B, K]` of that rule (K + 1 where it abstains).

    `samples` is S of a random predictor; None declares a deterministic one.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        *,
        samples: int | None = None,
        abstains: bool = False,
    ) -> None:
        super().__init__()
        if samples is not None and samples < 1:
            raise AttackError(f"samples: got {samples}; a random predictor needs at least one forward pass")
        self.module = as_module(module)
        self.samples = samples
        self.abstains = abstains

    @staticmethod
    def of(model: nn.Module) -> Predictor:
        """Return the model itself where it is a predictor, else one with the rule of its defence or its own.

        A network's own rule is its attribute `inference_samples`; without one it is deterministic.
        """
        if isinstance(model, Predictor):
            return model
        if isinstance(model, Defended):
            return Predictor(model, samples=model.samples, abstains=model.abstains)
        return Predictor(model, samples=own_samples(model))

    @property
    def random(self) -> bool:
        """Return whether it was declared random."""
        return self.samples is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the inference rule for images `[B, C, H, W]`."""
        return averaged(self.module, x, self.samples or 1)


def averaged(module: Callable[[Tensor], Tensor], x: Tensor, passes: int) -> Tensor:
    """Return the log of the mean softmax over several forward passes `[B, K]`; of one pass, the logits as they are."""
    # Clones, because a module may change its input in place, as a first layer nn.ReLU(inplace=True) does.
    if passes == 1:
        logits: Tensor = module(x.clone())
        return logits
    # One pass after the other: every draw is a forward pass of its own, and memory stays that of one batch.
    draws = torch.stack([module(x.clone()).float().log_softmax(1) for _ in range(passes)])
    return draws.logsumexp(0) - math.log(passes)


def merged(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits `[B, K + 1]` with a last class "rejected" as `[B, K]`, where a rejection counts as the label.

    A last logit of minus infinity, which no maximum shows, becomes NaN: answers that are not finite are wrong.
    """
    classes, rejected = logits[:, :-1], logits[:, -1:]
    rejected = rejected.masked_fill(rejected.isneginf(), torch.nan)
    own = labels.unsqueeze(1)
    return classes.scatter(1, own, torch.maximum(classes.gather(1, own), rejected))

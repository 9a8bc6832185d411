"""The twin of a model: the plain network that an attack is made on which ignores the defence, or the randomness.

That of a defended model is its network without the defence, that of a Bayesian network the one of its mean weights. Any
other model has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

from torch import nn

from robust_nas.defences import Defended


def twin_of(module: nn.Module) -> nn.Module | None:
    """Return the twin of a module, or None; a posterior mean is built by every call."""
    if isinstance(module, Defended):
        return module.module
    return posterior_mean_of(module)


def has_twin(module: nn.Module) -> bool:
    """Return whether `twin_of` has one; nothing is built."""
    return isinstance(module, Defended) or has_posterior_mean(module)


def has_posterior_mean(module: nn.Module) -> bool:
    """Return whether the module is a network of random weights that knows the network of their means."""
    method = getattr(module, "posterior_mean", None)
    return callable(method) and not inspect.signature(method).parameters


def posterior_mean_of(module: nn.Module) -> nn.Module | None:
    """Return the network of the mean weights of a Bayesian network, or None."""
    if not has_posterior_mean(module):
        return None
    return cast(Callable[[], nn.Module], module.posterior_mean)()

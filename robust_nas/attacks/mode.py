"""The state in which a model is attacked, and the promise that it comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def attack_mode(model: nn.Module, bn: Literal["eval", "batch"] = "eval") -> Iterator[nn.Module]:
    """The model in eval mode with frozen parameters; on leaving, everything is as it was.

    With `bn="batch"` the BatchNorm modules alone normalise by the statistics of the batch, and their buffers
    (`num_batches_tracked` included) stay untouched. Modes are set on every submodule rather than by
    `model.eval()`, so that a model of mixed modes comes back mixed. Frozen parameters spare the weight
    gradients and `.grad`.
    """
    # A frozen ScriptModule has no mode.
    modules = [module for module in model.modules() if hasattr(module, "training")]
    modes = [module.training for module in modules]
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    parameters = list(model.parameters())
    required = [parameter.requires_grad for parameter in parameters]
    try:
        for module in modules:
            module.training = False
        if bn == "batch":
            for norm in norms:
                norm.training = True
                norm.track_running_stats = False
        for parameter in parameters:
            parameter.requires_grad = False
        yield model
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for norm, track in zip(norms, tracked, strict=True):
            norm.track_running_stats = track
        for parameter, require in zip(parameters, required, strict=True):
            parameter.requires_grad = require

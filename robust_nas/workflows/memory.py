"""Refuse a network whose training cannot fit into memory, before anything is written.

    bytes >= 4 P (1 + 1 + 1 [momentum] + 1 [moving average])      P parameters in float32, of all particles

weights, gradients, and the states that the recipe asks for. Activations, buffers and what a step holds come on top:
what is refused cannot fit, what is not refused may still not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.environment import machine_memory
from robust_nas.errors import ConfigError
from robust_nas.spaces import Architecture, count, sample
from robust_nas.workflows.candidate_tasks import network_size

if TYPE_CHECKING:
    import torch

    from robust_nas.training import Training
    from robust_nas.workflows.config import RunConfig
    from robust_nas.workflows.context import JobContext

BYTES = 4  # of a float32


def training_bytes(params: int, training: Training) -> int:
    """Return the bytes of weights, gradients and the optimiser's states of a network, at least."""
    copies = 2 + (training.momentum > 0) + (training.ema is not None)
    return BYTES * params * copies


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a GPU, or of this machine or its container."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_memory()


def refuse_memory_of_run(config: RunConfig, context: JobContext) -> None:
    """Raise `ConfigError` where a random architecture of the space has no room: its size is that of what is found."""
    space = config.space.load()
    likely = sample(space, config.seed, size=network_size(config, space))
    refuse_memory(config.network.made_of(likely), config.training, context)


def refuse_memory(architecture: Architecture, training: Training, context: JobContext) -> None:
    """Raise `ConfigError` where the training of an architecture needs more memory than the device has."""
    params = count(architecture, context.dataset.shape, context.dataset.classes).params
    device = context.device
    needed, there = training_bytes(params, training), memory_of(device)
    if needed <= there:
        return
    advice = "a smaller network is needed"
    if architecture.has_particles:
        particles: int = dict(architecture)["particles"]
        fit = there * particles // needed
        advice = f"got {particles} particles; {f'at most {fit} fit' if fit else 'not even one fits'}"
    raise ConfigError(
        f"{architecture.name}: {params:,} parameters need at least {_in_words(needed)} with gradients and the "
        f"optimiser's state, {'the machine' if device.type == 'cpu' else device} has {_in_words(there)}; {advice}"
    )


def _in_words(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"

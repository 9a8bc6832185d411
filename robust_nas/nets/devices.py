"""Refuse a device that this torch cannot use, before anything is read or moved."""

from __future__ import annotations

import torch

from robust_nas.errors import ConfigError


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device by the name that its tensors have, such as `cuda:0`. Raise `ConfigError` for one not there."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # without CUDA, torch asserts
        reason = (str(error).splitlines() or [""])[0]
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise ConfigError(
            f"device: got {str(device)!r}, which this torch cannot use ({reason}); allowed here: {there}"
        ) from None

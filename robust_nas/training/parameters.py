"""Which parameters of a network weight decay, and what else is meant for weights alone, acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def undecayed(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are no weights: those of `undecayed_parameters`, where a network has it."""
    own = getattr(network, "undecayed_parameters", None)
    return list(own()) if callable(own) else []


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters for an optimiser; the undecayed ones, where there are some, as a second group."""
    apart = undecayed(network)
    kept = {id(parameter) for parameter in apart}
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if id(each) not in kept]}
    ]
    return [*groups, {"params": apart, "weight_decay": 0.0}] if apart else groups

"""Operations on the edges of cells, and activations: one file each. Nothing here imports torch until it is built."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.operations.activation import Activation
from robust_nas.operations.cost import Cost, Part
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation
from robust_nas.registry import Registry

OPERATIONS = Registry(
    "operation",
    Operation,
    "robust_nas.operations",
    {
        "max_pool_3x3": "pooling:MaxPool3x3",
        "avg_pool_3x3": "pooling:AvgPool3x3",
        "skip_connect": "skip_connect:SkipConnect",
        "sep_conv_3x3": "separable_conv:SepConv3x3",
        "sep_conv_5x5": "separable_conv:SepConv5x5",
        "dil_conv_3x3": "separable_conv:DilConv3x3",
        "dil_conv_5x5": "separable_conv:DilConv5x5",
        "none": "none:NoEdge",
        "nor_conv_1x1": "nor_conv:NorConv1x1",
        "nor_conv_3x3": "nor_conv:NorConv3x3",
    },
    group="robust_nas.operations",
)
ACTIVATIONS = Registry(
    "activation",
    Activation,
    "robust_nas.operations",
    {
        "relu": "relu:ReLU",
        "silu": "silu:SiLU",
        "gelu": "gelu:GELU",
        "softplus": "softplus:Softplus",
        "sparta": "sparta:Sparta",
        "sparta-1x1": "sparta:MixedSparta",
    },
    group="robust_nas.activations",
)


def known_operation(name: str) -> str:
    """Return the name under which `OPERATIONS` knows an operation; a path in it becomes absolute.

    Raises `ValueError` for an unknown one, as validators of pydantic have to.
    """
    return _known(OPERATIONS, name)


def known_activation(name: str) -> str:
    """Return the same for `ACTIVATIONS`."""
    return _known(ACTIVATIONS, name)


def _known(registry: Registry[Operation] | Registry[Activation], name: str) -> str:
    try:
        found: str = registry.get(name).model_fields[registry.key].default
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise ValueError(f"unknown {registry.kind}: {error}") from None
    return found


OperationName = Annotated[str, AfterValidator(known_operation)]  # fields of options that name one
ActivationName = Annotated[str, AfterValidator(known_activation)]

__all__ = [
    "ACTIVATIONS",
    "OPERATIONS",
    "Activation",
    "ActivationName",
    "Cost",
    "Layer",
    "Operation",
    "OperationName",
    "Part",
    "known_activation",
    "known_operation",
]

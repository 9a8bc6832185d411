"""Costs and names of `robust_nas.operations`, as architectures and spaces use them."""

from robust_nas.operations import OPERATIONS
from robust_nas.operations import ActivationName as Activation
from robust_nas.operations.cost import (
    Cost,
    Part,
    batch_norm,
    factorized_reduce,
    linear,
    pointwise,
    total,
)

__all__ = [
    "OPERATIONS",
    "Activation",
    "Cost",
    "Part",
    "batch_norm",
    "factorized_reduce",
    "linear",
    "pointwise",
    "total",
]

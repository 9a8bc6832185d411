"""What can be searched: cell spaces, architectures, analytic costs, random sampling. No torch, no training."""

from robust_nas.spaces.architecture import (
    Architecture,
    Cell,
    CellArchitecture,
    Edge,
    architecture_from_text,
    load_architecture,
)
from robust_nas.spaces.counting import count, parts
from robust_nas.spaces.files import is_shipped, shipped_names
from robust_nas.spaces.layout import CellPlace, Layout
from robust_nas.spaces.mlp import MLPArchitecture
from robust_nas.spaces.operations import OPERATIONS, Cost, Part
from robust_nas.spaces.residual import WIDE_RESNETS, ResidualArchitecture, wide_resnet
from robust_nas.spaces.sampling import sample
from robust_nas.spaces.space import CellSpace, Size, load_space

__all__ = [
    "OPERATIONS",
    "WIDE_RESNETS",
    "Architecture",
    "Cell",
    "CellArchitecture",
    "CellPlace",
    "CellSpace",
    "Cost",
    "Edge",
    "Layout",
    "MLPArchitecture",
    "Part",
    "ResidualArchitecture",
    "Size",
    "architecture_from_text",
    "count",
    "is_shipped",
    "load_architecture",
    "load_space",
    "parts",
    "sample",
    "shipped_names",
    "wide_resnet",
]

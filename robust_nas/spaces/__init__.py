"""What can be searched: cell spaces, architectures, analytic costs, random sampling. No torch, no training.

`FAMILIES` knows the families of architectures by name; `AnyArchitecture` is the type of a field that holds one.
"""

from robust_nas.operations import OPERATIONS, Cost, Part
from robust_nas.spaces.architecture import Architecture, InputShape, StageSizes
from robust_nas.spaces.cell import Cell, CellArchitecture, Edge, has_cells
from robust_nas.spaces.coded_cost import CodedCost
from robust_nas.spaces.counting import count, parts
from robust_nas.spaces.encoding import Code, Encoding
from robust_nas.spaces.ensemble import EnsembleArchitecture, Particles
from robust_nas.spaces.families import (
    FAMILIES,
    AnyArchitecture,
    architecture_from_text,
    load_architecture,
    named_architecture,
    names_in_words,
)
from robust_nas.spaces.files import is_shipped, shipped_names
from robust_nas.spaces.genotypes import import_all, import_architecture
from robust_nas.spaces.layout import CellPlace, Layout
from robust_nas.spaces.mean_field import MeanFieldArchitecture
from robust_nas.spaces.mlp import MLPArchitecture
from robust_nas.spaces.nas_bench_201 import NASBench201Architecture
from robust_nas.spaces.residual import WIDE_RESNETS, ResidualArchitecture, is_staged
from robust_nas.spaces.sampling import sample
from robust_nas.spaces.space import CellSpace, Size, load_space
from robust_nas.spaces.topology import Topology
from robust_nas.spaces.wrapped import WrappedArchitecture

__all__ = [
    "FAMILIES",
    "OPERATIONS",
    "WIDE_RESNETS",
    "AnyArchitecture",
    "Architecture",
    "Cell",
    "CellArchitecture",
    "CellPlace",
    "CellSpace",
    "Code",
    "CodedCost",
    "Cost",
    "Edge",
    "Encoding",
    "EnsembleArchitecture",
    "InputShape",
    "Layout",
    "MLPArchitecture",
    "MeanFieldArchitecture",
    "NASBench201Architecture",
    "Part",
    "Particles",
    "ResidualArchitecture",
    "Size",
    "StageSizes",
    "Topology",
    "WrappedArchitecture",
    "architecture_from_text",
    "count",
    "has_cells",
    "import_all",
    "import_architecture",
    "is_shipped",
    "is_staged",
    "load_architecture",
    "load_space",
    "named_architecture",
    "names_in_words",
    "parts",
    "sample",
    "shipped_names",
]

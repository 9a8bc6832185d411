"""Answer what studies ask of an architecture's family: one function a question, and nowhere else an `isinstance`."""

from __future__ import annotations

import hashlib
import json

from robust_nas.config import to_dict
from robust_nas.spaces import Architecture, CellArchitecture, ResidualArchitecture
from robust_nas.spaces.rules import depth_share, wd_ratio


def staged(architecture: Architecture) -> ResidualArchitecture | None:
    """Return the architecture where it has stages of a depth and a width each, else None."""
    return architecture if isinstance(architecture, ResidualArchitecture) else None


def celled(architecture: Architecture) -> CellArchitecture | None:
    """Return the architecture where it is made of searched cells, else None.

    Such networks inherit weights of a supernet, and may have an auxiliary head.
    """
    return architecture if isinstance(architecture, CellArchitecture) else None


def total_depth(architecture: Architecture) -> int:
    """Return the number of blocks, cells or hidden layers."""
    if isinstance(architecture, ResidualArchitecture):
        return sum(architecture.depths)
    return architecture.cells if isinstance(architecture, CellArchitecture) else architecture.depth


def size_factors(architecture: Architecture) -> dict[str, float | str]:
    """Return the factors of an architecture that do not depend on the images: depth, width, activation, ..."""
    factors: dict[str, float | str] = {}
    if isinstance(architecture, CellArchitecture):
        return {
            "depth": total_depth(architecture),
            "width": architecture.channels,
            "genotype": genotype_id(architecture),
        }
    if isinstance(architecture, ResidualArchitecture):
        for index, (depth, width) in enumerate(zip(architecture.depths, architecture.widths, strict=True)):
            factors |= {f"depths.{index}": depth, f"widths.{index}": width}
        factors |= {
            "depth": total_depth(architecture),
            "width": sum(architecture.widths),
            "block": architecture.block,
        }
    else:
        factors |= {"depth": total_depth(architecture), "width": architecture.width}
    factors |= {"activation": architecture.activation, "initialisation": architecture.initialisation}
    rules = {"r_d": depth_share(architecture), "wd_ratio": wd_ratio(architecture)}
    return factors | {name: value for name, value in rules.items() if value is not None}


def genotype_id(architecture: CellArchitecture) -> str:
    """Return eight hex digits of the cells: architectures of several sizes share them, and a supernet's score."""
    cells = [to_dict(cell) for cell in sorted(architecture.genotype, key=lambda cell: cell.kind)]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:8]

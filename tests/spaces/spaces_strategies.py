"""Random valid architectures for hypothesis: cells of any layout, edges, output nodes; residual stages of any block and
size; MLPs.
"""

from typing import Any

from hypothesis import strategies as st

from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.spaces import (
    Cell,
    CellArchitecture,
    Edge,
    Layout,
    MLPArchitecture,
    ResidualArchitecture,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)
ACTIVATION = st.sampled_from(ACTIVATIONS.names())
OF_VECTORS = st.sampled_from([name for name in ACTIVATIONS.names() if not ACTIVATIONS.get(name).needs_maps])
FRACTIONS = ("1/5", "1/3", "1/2", "3/5", "2/3", "9/10")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    stages = draw(st.integers(1, 3))
    chosen = draw(st.lists(st.sampled_from(FRACTIONS), min_size=stages - 1, max_size=stages - 1, unique=True))
    return Layout(
        stages=tuple(draw(st.sampled_from(["first", "second"])) for _ in range(stages)),
        reduction_cells=tuple(draw(st.sampled_from(["reduce", "squeeze"])) for _ in range(stages - 1)),
        reductions=tuple(sorted(chosen, key=FRACTIONS.index)),
        filters=tuple(draw(st.lists(st.integers(1, 4), min_size=stages, max_size=stages))),
        stem=draw(st.integers(1, 3)),
    )


@st.composite
def cells(draw: st.DrawFn, kind: str) -> Cell:
    nodes = tuple(
        tuple(
            Edge(draw(st.sampled_from(OPERATIONS.names())), draw(st.integers(0, node + 1)))
            for _ in range(draw(st.integers(1, 4)))
        )
        for node in range(draw(st.integers(1, 4)))
    )
    concat = draw(st.lists(st.integers(2, len(nodes) + 1), min_size=1, unique=True))
    return Cell(kind=kind, nodes=nodes, concat=tuple(concat))


@st.composite
def architectures(draw: st.DrawFn) -> CellArchitecture:
    layout = draw(layouts())
    return CellArchitecture(
        name=draw(NAMES),
        cells=draw(st.integers(11, 12)),  # with 10, 3/5 and 2/3 would be one cell
        channels=draw(st.integers(2, 5)),
        layout=layout,
        genotype=tuple(draw(cells(kind)) for kind in layout.kinds),
        activation=draw(ACTIVATION),
    )


@st.composite
def residual_architectures(draw: st.DrawFn) -> ResidualArchitecture:
    depths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    per_stage = len(depths)
    return ResidualArchitecture(
        name=draw(NAMES),
        activation=draw(ACTIVATION),
        initialisation=draw(st.sampled_from(["he-fan-out", "he-fan-in", "lecun"])),
        stem=draw(st.integers(1, 5)),
        depths=tuple(depths),
        # few values, so that neighbours are often equal
        widths=tuple(draw(st.lists(st.integers(1, 5), min_size=per_stage, max_size=per_stage))),
        strides=tuple(draw(st.lists(st.integers(1, 3), min_size=per_stage, max_size=per_stage))),
        **draw(blocks()),
    )


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    """A block and its numbers, such that a stage of any width can be built."""
    block = draw(st.sampled_from(["basic", "bottleneck", "robust-res"]))
    if block == "basic":
        return {}
    expansion = draw(st.integers(1, 4))
    if block == "bottleneck":
        return {"block": block, "expansion": expansion}
    return {
        "block": block,
        "expansion": expansion,
        "cardinality": draw(st.integers(1, 3)),
        "scales": draw(st.integers(1, 4)),
        "base_width": draw(st.sampled_from([160, 200, 320])),
        "se_reduction": draw(st.integers(1, expansion)),
        "preactivated": draw(st.booleans()),
    }


@st.composite
def mlp_architectures(draw: st.DrawFn) -> MLPArchitecture:
    return MLPArchitecture(
        name=draw(NAMES),
        depth=draw(st.integers(1, 4)),
        width=draw(st.integers(1, 9)),
        activation=draw(OF_VECTORS),
        initialisation=draw(st.sampled_from(["he-fan-in", "lecun", "ntk"])),
    )

"""Random architectures of a space, within a budget: the control that every search needs.

Every node takes `edges_per_node` distinct sources uniformly (or all) and an operation uniformly on each. A budget is
met by rejection, so the draw is uniform among the genotypes that fit.
"""

from __future__ import annotations

import numpy as np

from robust_nas.errors import SearchSpaceError
from robust_nas.spaces.cell import CellArchitecture, Edge
from robust_nas.spaces.counting import count
from robust_nas.spaces.space import CellSpace, Size

MAX_DRAWS = 5_000


def sample(
    space: CellSpace,
    seed: int,
    *,
    macs: tuple[float, float] | None = None,
    params: tuple[float, float] | None = None,
    size: Size | None = None,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
) -> CellArchitecture:
    """Return one random architecture with MACs and parameters in the given closed ranges (counts per image).

    Raises `SearchSpaceError` with the range seen when no draw of many meets the budget.
    """
    rng = np.random.default_rng(seed)
    seen: list[tuple[int, int]] = []
    for _ in range(MAX_DRAWS):
        genotype = {kind: _random_nodes(space, rng) for kind in space.kinds}
        architecture = space.architecture(f"{space.name}-random-{seed}", genotype, size)
        if macs is None and params is None:
            return architecture
        cost = count(architecture, input_shape, classes)
        if _within(cost.macs, macs) and _within(cost.params, params):
            return architecture
        seen.append((cost.macs, cost.params))
    (macs_low, params_low), (macs_high, params_high) = (
        tuple(map(pick, zip(*seen, strict=True))) for pick in (min, max)
    )
    windows = (("MACs", macs), ("params", params))
    wanted = [f"{window[0]:g} to {window[1]:g} {name}" for name, window in windows if window]
    raise SearchSpaceError(
        f"{space.name}: no architecture with {' and '.join(wanted)} among {MAX_DRAWS} draws; "
        f"seen: {macs_low}..{macs_high} MACs, {params_low}..{params_high} params"
    )


def _within(value: int, limits: tuple[float, float] | None) -> bool:
    return limits is None or limits[0] <= value <= limits[1]


def _random_nodes(space: CellSpace, rng: np.random.Generator) -> list[list[Edge]]:
    nodes = []
    for node in range(space.nodes):
        sources = list(space.sources_of(node))
        if space.edges_per_node != "all":
            chosen = rng.choice(len(sources), size=space.edges_per_node, replace=False)
            sources = [sources[index] for index in sorted(chosen.tolist())]
        nodes.append([Edge(str(rng.choice(space.operations)), source) for source in sources])
    return nodes

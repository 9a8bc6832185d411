"""Analytic parameters and MACs: the published figures, and equality with torch's own count on the built module."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space_counts import Shape, torch_count
from spaces_strategies import architectures, mlp_architectures, residual_architectures

from robust_nas.spaces import (
    Architecture,
    CellArchitecture,
    Cost,
    Size,
    count,
    load_architecture,
    load_space,
    parts,
    sample,
)


def test_the_published_figures() -> None:
    assert count(load_architecture("arnas")) == Cost(4_520_394, 1_240_151_040)
    assert count(load_architecture("darts_v2")) == Cost(3_349_342, 528_359_040)


@pytest.mark.parametrize("name", ["arnas", "darts_v2"])
def test_shipped_architectures_count_as_torch_counts(name: str) -> None:
    architecture = load_architecture(name)
    assert count(architecture) == torch_count(architecture, (3, 32, 32), 10)


@pytest.mark.parametrize("space", ["dsara", "darts"])
@pytest.mark.parametrize("cells", range(3, 21))
def test_sampled_architectures_of_every_depth_count_as_torch_counts(space: str, cells: int) -> None:
    fewer = {"nodes": 2} if cells % 4 else {}  # all of a cell's nodes in one depth of four
    drawn = sample(load_space(space, fewer), seed=cells, size=Size(cells=cells, channels=1 + cells % 7))
    shape = ((3, 32, 32), (1, 28, 28), (2, 7, 9), (1, 8, 8), (4, 1, 5))[cells % 5]
    assert count(drawn, shape, 2 + cells) == torch_count(drawn, shape, 2 + cells)


@settings(max_examples=8)
@given(architectures(), st.tuples(*[st.integers(1, 33)] * 3), st.integers(1, 5))
def test_any_architecture_on_any_input_counts_as_torch_counts(
    architecture: CellArchitecture, shape: Shape, classes: int
) -> None:
    assert count(architecture, shape, classes) == torch_count(architecture, shape, classes)


@settings(max_examples=60)
@given(
    st.one_of(architectures(), residual_architectures(), mlp_architectures()),
    st.tuples(*[st.integers(1, 33)] * 3),
    st.integers(1, 5),
)
def test_the_parts_of_a_network_sum_to_its_count(
    architecture: Architecture, shape: Shape, classes: int
) -> None:
    found = parts(architecture, shape, classes)
    cost = count(architecture, shape, classes)
    assert sum(part.cost.params for part in found) == cost.params
    assert sum(part.cost.macs for part in found) == cost.macs
    names = [part.name for part in found]
    stages = [f"stage {number}" for number in range(1, len(names) - (architecture.type != "mlp"))]
    assert names == (["stem"] if architecture.type != "mlp" else []) + stages + ["head"]


def test_the_shares_of_the_stages_are_the_published_ones() -> None:
    # studies of the last stage are about these: WRN-34-10, and WRN-34-R, which shrinks it
    for name, params, macs in (("wrn-34-10", 0.763, 0.34), ("wrn-34-r", 0.36, 0.08)):
        architecture = load_architecture(name)
        last, cost = parts(architecture)[-2].cost, count(architecture)
        assert last.params / cost.params == pytest.approx(params, abs=1e-3)
        assert last.macs / cost.macs == pytest.approx(macs, abs=1e-2)


def test_a_stage_without_cells_costs_nothing() -> None:
    architecture = load_architecture("arnas").resized(2, 4)  # reductions at cells 0 and 1
    assert [part.name for part in parts(architecture)] == ["stem", "stage 1", "stage 2", "stage 3", "head"]
    assert parts(architecture)[1].cost == Cost(0, 0)

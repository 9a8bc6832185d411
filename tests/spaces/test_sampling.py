"""Random architectures: seeded, within the budget, and uniform over the genotypes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.errors import SearchSpaceError
from robust_nas.spaces import Size, count, load_space, sample, sampling

DSARA = load_space("dsara")
SMALL = Size(cells=5, channels=8)


@given(st.integers(0, 2**63))
def test_a_seed_is_an_architecture(seed: int) -> None:
    one = sample(DSARA, seed, size=SMALL)
    assert one == sample(DSARA, seed, size=SMALL)
    assert (one.cells, one.channels) == (5, 8)
    assert one.resized(20, 64) == sample(DSARA, seed)
    for cell in one.genotype:
        for number, node in enumerate(cell.nodes):
            sources = [edge.source for edge in node]
            assert len(set(sources)) == 2
            assert max(sources) <= number + 1
            assert {edge.operation for edge in node} <= set(DSARA.operations)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_a_budget_is_kept(seed: int) -> None:
    macs, params = (1.2e6, 1.8e6), (20e3, 30e3)
    cost = count(
        sample(DSARA, seed, macs=macs, params=params, size=SMALL, input_shape=(1, 16, 16)), (1, 16, 16)
    )
    assert macs[0] <= cost.macs <= macs[1]
    assert params[0] <= cost.params <= params[1]


def test_sources_and_operations_are_drawn_uniformly() -> None:
    last_pairs, operations = Counter(), Counter()
    draws = 1500
    for seed in range(draws):
        for cell in sample(DSARA, seed, size=SMALL).genotype:
            last_pairs[tuple(edge.source for edge in cell.nodes[3])] += 1
            operations.update(cell.operations())
    for counts, kinds, total in ((last_pairs, 10, 3 * draws), (operations, 7, 24 * draws)):
        assert len(counts) == kinds
        expected = total / kinds
        chi_square = sum((seen - expected) ** 2 / expected for seen in counts.values())
        assert chi_square < 30  # 9 and 6 degrees of freedom: p < 1e-3; the seeds are fixed


def test_an_infeasible_budget_is_answered_with_the_range_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_DRAWS", 50)
    with pytest.raises(
        SearchSpaceError, match=r"with 1 to 2 MACs among 50 draws; seen: [0-9]+\.\.[0-9]+ MACs"
    ):
        sample(DSARA, 0, macs=(1, 2), size=SMALL)

"""Splits are partitions, stratified, seeded, and the same on every machine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.data.splits import balanced, random_indices, split
from robust_nas.errors import ConfigError

many_labels = st.lists(st.integers(0, 6), min_size=4, max_size=120).map(torch.tensor)


@given(many_labels, st.floats(0.2, 0.8), st.integers(0, 2**70))
@settings(deadline=None)
def test_a_split_is_a_stratified_partition(labels: torch.Tensor, fraction: float, seed: int) -> None:
    first, second = split(labels, fraction, seed)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(len(labels)))
    assert torch.equal(first, first.sort().values)
    assert torch.equal(second, second.sort().values)
    assert abs(len(second) - fraction * len(labels)) <= 0.5 + 1e-9
    share = torch.bincount(labels[second], minlength=7) - fraction * torch.bincount(labels, minlength=7)
    assert share.abs().max() < 1 + 1e-9


@given(many_labels, st.data())
@settings(deadline=None)
def test_balanced_is_level_up_to_the_size_of_a_class(labels: torch.Tensor, data: st.DataObject) -> None:
    count = data.draw(st.integers(len(labels.unique()), len(labels) + 3))
    chosen = balanced(labels, count, 0)
    assert len(chosen) == len(chosen.unique()) == min(count, len(labels))
    sizes = torch.bincount(labels, minlength=7)
    taken = torch.bincount(labels[chosen], minlength=7)
    not_exhausted = taken[taken < sizes]
    if len(not_exhausted):
        assert taken.max() - not_exhausted.min() <= 1


def test_a_split_is_a_function_of_its_seed() -> None:
    labels = torch.arange(100) % 5
    assert torch.equal(split(labels, 0.5, 7)[1], split(labels, 0.5, 7)[1])
    assert not torch.equal(split(labels, 0.5, 7)[1], split(labels, 0.5, 8)[1])


def test_the_stream_is_pinned() -> None:
    assert split(torch.arange(20) % 2, 0.3, 0)[1].tolist() == [1, 4, 9, 10, 11, 16]


def test_the_global_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    split(torch.arange(20) % 2, 0.3, 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.99, 1.0, -0.5, 2.0, float("nan"), float("inf")])
def test_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="10 images"):
        split(torch.arange(10), fraction, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        split(torch.arange(10), 0.5, -1)


def test_random_indices_are_a_prefix_of_one_permutation() -> None:
    whole = random_indices(50, None, 3)
    assert torch.equal(whole, torch.randperm(50, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(random_indices(50, 7, 3), whole[:7])
    assert torch.equal(random_indices(50, 80, 3), whole)

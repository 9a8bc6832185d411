"""The order of images: each at most once an epoch, a function of seed and epoch alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.data.order import batches


@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 10**6), st.integers(0, 500))
def test_an_epoch_is_whole_batches_of_different_images(count, size, seed, epoch):
    order = batches(count, size, seed=seed, epoch=epoch)
    seen = torch.cat(order)
    assert len(seen.unique()) == len(seen)
    assert 0 <= seen.min() <= seen.max() < count
    if count < size:
        assert [len(batch) for batch in order] == [count]
    else:
        assert [len(batch) for batch in order] == [size] * (count // size)


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_seed_and_epoch_decide_the_order(seed, epoch):
    def order(seed, epoch):
        return torch.cat(batches(50, 10, seed=seed, epoch=epoch)).tolist()

    assert order(seed, epoch) == order(seed, epoch)
    assert order(seed, epoch) != order(seed, epoch + 1)
    assert order(seed, epoch) != order(seed + 1, epoch)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    batches(50, 10, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)

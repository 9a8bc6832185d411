"""Augmentation against explicit slices, and its identities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.data import Augment, augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 8, channels: int = 3, height: int = 6, width: int = 5) -> torch.Tensor:
    """Pixels that all differ within a channel and are never zero, so that a place is known by its value."""
    places = torch.arange(1, height * width + 1).view(1, 1, height, width)
    shift = torch.arange(count * channels).view(count, channels, 1, 1)
    return ((places + 7 * shift) % 255 + 1).to(torch.uint8)


options = st.builds(Augment, crop=st.integers(0, 7), flip=st.booleans(), cutout=st.integers(0, 9))


def test_all_off_is_exactly_pixels_over_255_and_draws_nothing() -> None:
    source = generator()
    before = source.get_state()
    assert torch.equal(augment(batch(), Augment(), source), batch().float() / 255)
    assert torch.equal(source.get_state(), before)


@given(options, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_seed_fixes_the_result_and_the_input_stays(chosen: Augment, seed: int) -> None:
    pixels = batch()
    first, second = (augment(pixels, chosen, generator(seed)) for _ in range(2))
    assert first.dtype == torch.float32
    assert first.shape == pixels.shape
    assert torch.equal(first, second)
    assert torch.equal(pixels, batch())


@given(st.integers(1, 7), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_each_crop_is_a_slice_of_the_padded_image(pad: int, seed: int) -> None:
    pixels = batch()
    cropped = augment(pixels, Augment(crop=pad), generator(seed))
    draws = generator(seed)
    tops, lefts = (torch.randint(2 * pad + 1, (8, 1), generator=draws) for _ in range(2))
    for image, result, top, left in zip(pixels, cropped, tops, lefts, strict=True):
        padded = torch.zeros(3, 6 + 2 * pad, 5 + 2 * pad)
        padded[:, pad : pad + 6, pad : pad + 5] = image / 255
        assert torch.equal(result, padded[:, top : top + 6, left : left + 5])


def test_a_flip_is_the_image_or_its_mirror_and_twice_is_once() -> None:
    pixels = batch(64)
    once = augment(pixels, Augment(flip=True), generator(1))
    kept = (once == pixels / 255).flatten(1).all(1)
    mirrored = (once == pixels.flip(3) / 255).flatten(1).all(1)
    assert torch.equal(kept, ~mirrored)
    assert kept.any()
    assert mirrored.any()
    twice = augment((once * 255).round().to(torch.uint8), Augment(flip=True), generator(1))
    assert torch.equal(twice, pixels / 255)


@given(st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_crop_then_flip_is_the_crop_mirrored(pad: int, seed: int) -> None:
    cropped = augment(batch(), Augment(crop=pad), generator(seed))
    both = augment(batch(), Augment(crop=pad, flip=True), generator(seed))
    same = (both == cropped).flatten(1).all(1)
    mirrored = (both == cropped.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()


@given(st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_cutout_blackens_one_clipped_square_in_all_channels(side: int, seed: int) -> None:
    pixels = batch()
    cut = augment(pixels, Augment(cutout=side), generator(seed))
    draws = generator(seed)
    rows, columns = torch.randint(6, (8, 1), generator=draws), torch.randint(5, (8, 1), generator=draws)
    black = cut == 0
    assert torch.equal(cut[~black], (pixels / 255)[~black])
    for image, row, column in zip(black, rows, columns, strict=True):
        expected = torch.zeros(6, 5, dtype=torch.bool)
        top, left = int(row) - side // 2, int(column) - side // 2
        expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
        assert 1 <= expected.sum() <= side**2
        assert all(torch.equal(channel, expected) for channel in image)


@pytest.mark.parametrize("chosen", [Augment(crop=2), Augment(flip=True), Augment(cutout=2)])
def test_images_have_their_own_draws(chosen: Augment) -> None:
    alike = batch(1).expand(64, -1, -1, -1)
    assert len(augment(alike, chosen, generator()).unique(dim=0)) > 1


def test_all_offsets_of_a_crop_are_drawn() -> None:
    alike = batch(1, 1).expand(500, -1, -1, -1)
    assert len(augment(alike, Augment(crop=1), generator()).unique(dim=0)) == 9


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    augment(batch(), Augment(crop=2, flip=True, cutout=2), generator())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cpu_generator_gives_the_same_on_a_gpu() -> None:
    chosen = Augment(crop=2, flip=True, cutout=3)
    on_gpu = augment(batch().cuda(), chosen, generator())
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), augment(batch(), chosen, generator()))

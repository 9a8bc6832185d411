"""The comparison of two sets of logits: blind to no mask, no offset and no NaN, and quiet about rounding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.layers.agreement import agree, disagreement

NAN, INF = math.nan, math.inf
MASKS = {
    "none": lambda z: z,
    "a class at -1e9": lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], -1e9)], 1),
    "a class at -inf": lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], -INF)], 1),
    "most classes at -1e9": lambda z: torch.cat([z[:, :3], torch.full_like(z[:, 3:], -1e9)], 1),
    "-1e9 added": lambda z: torch.cat([z[:, :-1], z[:, -1:] - 1e9], 1),
    "another class of every image": lambda z: z.masked_fill(
        torch.arange(z.shape[1]) == torch.arange(len(z))[:, None] % z.shape[1], -1e9
    ),
    "all but one on half of the images": lambda z: torch.cat(
        [z[::2], torch.cat([z[1::2, :1], z[1::2, 1:] - 1e9], 1)]
    ),
    "an image of NaN": lambda z: torch.cat([z[:-1], torch.full_like(z[-1:], NAN)]),
    "a constant class": lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], 0.0)], 1),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def logits(count=32, classes=10, seed=0, scale=5.0):
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


@every_mask
def test_the_same_logits_disagree_by_nothing(mask):
    z = mask(logits())
    assert disagreement(z, z.clone()) == 0


@every_mask
def test_noise_on_what_decides_is_seen_through_every_mask(mask):
    z = logits()
    noisy = z + 0.05 * logits(seed=1, scale=1.0)
    assert disagreement(mask(z), mask(noisy)) > 1e-3


@every_mask
def test_negated_logits_never_agree(mask):
    z = logits()
    assert not agree(mask(z), mask(-z), 1e-3)


@every_mask
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_not_seen(mask, dtype):
    z = logits().to(dtype)
    unit = torch.finfo(dtype).eps
    rounded = z + 16 * unit * z.abs().max() * logits(seed=1, scale=0.3).sign().to(dtype)
    assert disagreement(mask(z), mask(rounded)) < 1e-4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([[1.0, 2.0]], [[1.0, NAN]]),
        ([[1.0, NAN]], [[1.0, 2.0]]),
        ([[1.0, -INF]], [[1.0, INF]]),
        ([[1.0, 2.0]], [[1.0, INF]]),
        ([[-INF, 2.0]], [[-1e30, 2.0]]),
        ([[NAN, 2.0]], [[INF, 2.0]]),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]]),
    ],
)
def test_what_is_not_finite_in_one_alone_or_of_another_shape_is_infinitely_off(first, second):
    assert disagreement(torch.tensor(first), torch.tensor(second)) == INF


def test_nan_in_the_same_places_is_no_difference_and_no_agreement():
    z = torch.tensor([[1.0, NAN], [1.0, 2.0]])
    assert disagreement(z, z.clone()) == 0
    assert not agree(z, z.clone(), 1.0)
    assert disagreement(z, torch.tensor([[1.0, NAN], [1.0, 2.1]])) > 0.01


def test_masks_in_the_same_places_agree():
    z = torch.tensor([[1.0, -INF], [-INF, 2.0]])
    assert agree(z, z.clone(), 0.0)


def test_an_image_without_a_finite_logit_hides_no_other():
    z, other = logits(), logits(seed=1)
    z[0] = other[0] = -INF
    assert disagreement(z, other) > 0.1
    assert disagreement(z[:1], other[:1]) == 0


def test_an_offset_that_all_classes_share_hides_nothing():
    z = logits()
    assert disagreement(z + 1e4, z + 1e4 + 0.3 * logits(seed=1, scale=1.0)) > 1e-3
    assert disagreement(z + 1e4, z + 1e4 + 2**-10) < 1e-4


@pytest.mark.parametrize(
    "z", [torch.zeros(3, 4), torch.full((3, 4), -1e9), torch.full((1, 1), 2.0), torch.zeros(0, 4)]
)
def test_logits_without_a_margin_are_compared(z):
    assert disagreement(z, z.clone()) == 0
    if len(z):
        changed = z.clone()
        changed[0, 0] = 1 + 2 * z[0, 0].abs()
        assert disagreement(z, changed) > 0.3


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    size=st.floats(1e-6, 1e3),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    masked=st.integers(0, 8),
)
def test_answers_differ_only_where_the_margin_is_within_the_tolerance(seed, size, scale, masked):
    z = logits(count=8, seed=seed, scale=scale).double()
    other = z + size * logits(count=8, seed=seed + 1, scale=scale).double()
    z[:, 10 - masked :] = other[:, 10 - masked :] = -1e9 * scale
    found = disagreement(z, other)
    assert math.isfinite(found)
    top = z.topk(2).values
    margins = top[:, 0] - top[:, 1]
    changed = z.argmax(1) != other.argmax(1)
    assert (margins[changed] <= found * margins.clamp_min(margins.median())[changed] * (1 + 1e-6)).all()
    # It has no unit: both in another one disagree by as much.
    assert disagreement(4 * z, 4 * other) == pytest.approx(found, rel=1e-9)

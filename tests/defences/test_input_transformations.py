"""Blur, JPEG and random crops: what they do to images, and their gradients."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robust_nas.attacks import PGD
from robust_nas.defences import JPEG, Blur, CropResize, straight_through
from robust_nas.errors import ConfigError

SHAPES = pytest.mark.parametrize("channels", [1, 3])


def random_images(channels, side=8, count=3):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


class Sum(nn.Module):
    """Logits whose gradient is one everywhere."""

    def forward(self, x):
        return torch.stack([x.flatten(1).sum(1), torch.zeros(len(x))], 1)


class Pixels(nn.Module):
    """The images themselves, as logits."""

    def forward(self, x):
        return x.flatten(1)


def seen(defence, x):
    """Return what the network gets of images, in their shape."""
    return defence.wrap(Pixels())(x).view_as(x)


@SHAPES
def test_jpeg_is_pillows_round_trip(channels):
    x = random_images(channels, 12)
    for quality in (5, 75, 100):
        found = seen(JPEG(quality=quality), x)
        for image, answer in zip(x, found, strict=True):
            pixels = np.rint(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
            expected = np.asarray(Image.open(file)).reshape(12, 12, channels)
            assert torch.equal((255 * answer).round(), torch.tensor(expected).permute(2, 0, 1).float())


def test_a_lower_quality_changes_more_and_a_constant_image_stays():
    x = random_images(1, 16)
    errors = [float((seen(JPEG(quality=quality), x) - x).abs().mean()) for quality in (5, 50, 95)]
    assert errors == sorted(errors, reverse=True)
    constant = torch.full((1, 1, 8, 8), 128 / 255)
    assert torch.equal(seen(JPEG(quality=50), constant), constant)


def test_jpeg_takes_grey_and_rgb_images_in_any_float_type():
    JPEG().refuse_images((1, 8, 8), 10)
    JPEG().refuse_images((3, 8, 8), 10)
    with pytest.raises(ConfigError, match="1 or 3 channels, got 4"):
        JPEG().refuse_images((4, 8, 8), 10)
    x = random_images(1)
    half = seen(JPEG(), x.double())
    assert half.dtype == torch.float64
    assert torch.allclose(half.float(), seen(JPEG(), x))


def test_straight_through_has_the_exact_value_and_the_gradient_of_the_identity():
    x = torch.rand(1000).requires_grad_()
    value = (3 * x).round() / 3
    out = straight_through(x, value)
    assert torch.equal(out, value)
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones(1000))


@pytest.mark.parametrize("defence", [JPEG(quality=20), Blur(sigma=0.6)])
def test_the_gradient_of_a_sum_is_that_of_the_pixels(defence):
    x = random_images(1).requires_grad_()
    defence.wrap(Sum())(x)[:, 0].sum().backward()
    # A blur keeps the sum of an image, but for the mirrored edge.
    inner = x.grad[..., 3:-3, 3:-3]
    assert torch.allclose(inner, torch.ones_like(inner), atol=1e-4)


def test_the_gradient_through_jpeg_turns_answers():
    """The attack meets a flat function without BPDA: JPEG's own gradient is zero."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    model, x = JPEG(quality=60).wrap(network), random_images(1, count=16)
    labels = model(x).argmax(1)
    made = PGD(eps=0.2, steps=10)(model, x, labels, torch.Generator().manual_seed(0))
    assert (model(made).argmax(1) != labels).float().mean() > 0.8


@SHAPES
def test_a_crop_is_one_of_the_crops_of_its_image(channels):
    x = random_images(channels, 6, count=40)
    torch.manual_seed(3)
    found = seen(CropResize(share=0.5), x)
    assert found.shape == x.shape
    places = [(top, left) for top in range(4) for left in range(4)]
    crops = torch.stack([x[:, :, top : top + 3, left : left + 3] for top, left in places])
    resized = nn.functional.interpolate(crops.flatten(0, 1), size=(6, 6), mode="bilinear")
    gaps = (resized.view(16, *x.shape) - found).flatten(2).abs().amax(2)  # [places, images]
    assert gaps.amin(0).max() < 1e-6
    assert len(gaps.argmin(0).unique()) > 8  # each image has a place of its own


def test_the_answer_is_the_mean_over_crops_and_a_crop_needs_room():
    assert CropResize(samples=7).wrap(Sum()).samples == CropResize(samples=7).inference_samples == 7
    CropResize(share=0.9).refuse_images((1, 8, 8), 10)
    CropResize(share=0.99).refuse_images((1, 8, 80), 10)
    with pytest.raises(ConfigError, match="leaves nothing to draw"):
        CropResize(share=0.99).refuse_images((1, 8, 8), 10)

"""Squeezers against scipy and scikit-image, the score of the detector, its threshold, and how attacks see it."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from robust_nas.attacks import APGD, PGD, Predictor
from robust_nas.attacks.folding import folded
from robust_nas.config import check
from robust_nas.defences import FeatureSqueezing, SqueezedInput
from robust_nas.defences.feature_squeezing import change, joint_score
from robust_nas.defences.squeezers import squeezer
from robust_nas.errors import ConfigError

NAMES = ("bit-1", "bit-4", "median-2", "median-3", "nlm-5-3-8")


def images(count=4, channels=1, side=8, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def network(channels=1, classes=4, scale=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, classes)
        )
    with torch.no_grad():
        made[4].weight *= scale
    return made.eval()


class Fixed(nn.Module):
    """A network that answers with one class as it is given the image or its squeezed form."""

    def forward(self, x):
        class_ = (x.flatten(1)[:, 0] > 0.75).long()
        return 100 * nn.functional.one_hot(class_, 2).float() + 0 * x.flatten(1)[:, :2]


# Squeezers


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_median_is_scipy_s(size):
    for side, seed in ((4, 0), (7, 1), (8, 2)):
        x = images(3, 2, side, seed)
        x = (8 * x).round() / 8 if seed == 2 else x  # with ties
        expected = ndimage.median_filter(x.numpy(), size=(1, 1, size, size), mode="reflect")
        assert np.array_equal(squeezer(f"median-{size}")(x).numpy(), expected)


def test_bit_depth_is_numpy_s_rint():
    x = torch.cat([images(2), torch.linspace(0, 1, 64).view(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)])
    for bits in range(1, 9):
        top = 2**bits - 1
        squeezed = squeezer(f"bit-{bits}")(x)
        expected = np.rint(x.numpy() * np.float32(top)) / np.float32(top)
        assert np.array_equal(squeezed.numpy(), expected)
        assert torch.equal(squeezer(f"bit-{bits}")(squeezed), squeezed)
        assert len(squeezed.unique()) <= 2**bits
        assert (squeezed - x).abs().max() <= 1 / (2 * top) + 1e-7


def test_non_local_means_flattens_noise_and_is_that_of_scikit_image():
    from skimage.restoration import denoise_nl_means

    x = (0.5 + 0.02 * (images(2, 3, 12) - 0.5)).clamp(0, 1)
    squeezed = squeezer("nlm-7-3-20")(x)
    expected = denoise_nl_means(
        x[1].double().numpy(), patch_size=3, patch_distance=3, h=20 / 255, channel_axis=0
    )
    np.testing.assert_allclose(squeezed[1].numpy(), expected, atol=1e-6)
    assert squeezed.std() < 0.5 * x.std()
    assert squeezed.dtype == x.dtype


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bit")])
def test_a_constant_image_stays_as_it_is(name):
    x = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(squeezer(name)(x), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_images(name):
    x = images(2).requires_grad_()
    weights = images(2, seed=5)
    (gradient,) = torch.autograd.grad((weights * squeezer(name)(x)).sum(), x)
    if name.startswith("median"):  # each window's weight goes to the pixel that it took
        assert gradient.sum().item() == pytest.approx(weights.sum().item(), rel=1e-5)
        assert not torch.equal(gradient, weights)
    else:
        assert torch.equal(gradient, weights)


# The score


def test_the_score_is_0_for_the_identity_and_2_for_disjoint_answers():
    x = (255 * images()).round() / 255
    assert torch.equal(FeatureSqueezing(squeezers=("bit-8",)).score(network(), x), torch.zeros(4))
    x = torch.full((3, 1, 8, 8), 0.6)  # becomes 1 by one bit: another class
    assert torch.equal(FeatureSqueezing(squeezers=("bit-1",)).score(Fixed(), x), torch.full((3,), 2.0))


def test_the_score_is_within_its_range_and_the_order_of_squeezers_is_nothing_to_it():
    x, made = images(16), network(scale=20.0)
    scores = {
        names: FeatureSqueezing(squeezers=names).score(made, x)
        for names in (NAMES, NAMES[::-1], NAMES[:1], NAMES[2:3])
    }
    assert torch.equal(scores[NAMES], scores[NAMES[::-1]])
    assert torch.equal(
        FeatureSqueezing(squeezers=("bit-1", "median-2")).score(made, x),
        torch.maximum(scores[NAMES[:1]], scores[NAMES[2:3]]),
    )
    assert scores[NAMES].min() >= 0
    assert scores[NAMES].max() <= 2
    plain = (made(x).softmax(1) - made(squeezer("bit-1")(x)).softmax(1)).abs().sum(1)
    torch.testing.assert_close(scores[NAMES[:1]], plain)


def test_a_saturated_score_still_has_a_gradient_and_another_one_its_own():
    first = torch.tensor([[60.0, 0.0, -5.0]], requires_grad=True)
    second = torch.tensor([[0.0, 60.0, -5.0]], requires_grad=True)
    score = change(first, second)
    assert score.item() == 2
    gradients = torch.autograd.grad(score, (first, second))
    assert all(gradient.norm() > 1e-4 for gradient in gradients)
    assert gradients[0][0, 0] > 0
    small = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = small.requires_grad_().unbind()
    assert torch.autograd.gradcheck(change, (a, b))


# The threshold


@pytest.mark.parametrize(("count", "fpr"), [(60, 0.05), (61, 0.05), (140, 0.05), (20, 0.05), (30, 0.1)])
def test_false_alarms_on_its_own_calibration_images_are_the_floor_of_the_rate(count, fpr):
    x, made = images(count), network(scale=5.0)
    defence = FeatureSqueezing(fpr=fpr)
    values = defence.calibrate(made, x, torch.zeros(count, dtype=torch.long))
    scores = defence.score(made, x)
    assert len(scores.unique()) == count
    assert int((scores > values["threshold"]).sum()) == math.floor(round(count * fpr, 9))
    assert values["threshold"] == scores.sort().values[math.ceil(round(count * (1 - fpr), 9)) - 1]
    rejected = defence.wrap(made, values)(x).argmax(1) == 4
    assert torch.equal(rejected, scores > values["threshold"])


def test_too_few_images_for_the_rate_and_no_calibration_are_refused():
    defence = FeatureSqueezing()
    with pytest.raises(ConfigError, match="at least 20 validation images for one false alarm, got 19"):
        defence.calibrate(network(), images(19), torch.zeros(19))
    with pytest.raises(ConfigError, match="has not been calibrated"):
        defence.wrap(network())


# Options


def test_squeezers_follow_from_the_channels_or_are_listed():
    assert FeatureSqueezing().chosen(1) == ("bit-1", "median-2")
    assert FeatureSqueezing().chosen(3) == ("bit-5", "median-2")
    listed = check(FeatureSqueezing, {"squeezers": ["bit-5", "nlm-13-3-2"]}, "defence")
    assert listed.chosen(3) == ("bit-5", "nlm-13-3-2")


@pytest.mark.parametrize(
    "bad", ["bit", "bit-0", "bit-9", "median-1", "median-x", "nlm-13-3", "nlm-12-3-2", "blur-2", ""]
)
def test_other_squeezers_are_refused(bad):
    with pytest.raises(ConfigError, match="allowed: bit-I"):
        check(FeatureSqueezing, {"squeezers": [bad]}, "defence")
    with pytest.raises(ConfigError, match="allowed: bit-I"):
        check(SqueezedInput, {"by": bad}, "defence")


def test_small_images_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"median-5: needs images of at least 5 x 5 pixels, got 4 x 4"):
        FeatureSqueezing(squeezers=("median-5",)).refuse_images((1, 4, 4), 10)
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr("robust_nas.defences.squeezers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="robust-nas\\[defences\\]"):
        SqueezedInput(by="nlm-13-3-2").refuse_images((3, 8, 8), 10)


# What attacks meet


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folded_copy_has_the_same_logits_and_gradients(channels):
    made, x = network(channels), images(4, channels)
    defended = FeatureSqueezing().wrap(made, {"threshold": 0.2, "channels": channels})
    for model in (defended, SqueezedInput().wrap(made), SqueezedInput(by="bit-3").wrap(made)):
        copy = folded(model, x)
        assert copy.model_form == "folded"
        found = []
        for module in (model, copy.network):
            inputs = x.clone().requires_grad_()
            logits = module(inputs)
            found.append((logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), inputs)[0]))
        assert found[0][1].abs().max() > 0
        for own, other in zip(*found, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_non_local_means_is_attacked_as_it_is():
    model = SqueezedInput(by="nlm-5-3-8").wrap(network())
    assert folded(model, images()).model_form.startswith("as it is: torch.fx cannot trace it")


def test_an_attack_on_it_sees_the_joint_event_and_stays_in_the_ball():
    made, x = network(scale=3.0), images(12)
    defence = FeatureSqueezing()
    values = {"threshold": 0.3, "channels": 1}
    defended = defence.wrap(made, values)
    labels = made(x).argmax(1)
    adversarial = APGD(eps=0.3, steps=20, loss="margin")(Predictor.of(defended), x, labels)
    assert (adversarial - x).abs().max() <= 0.3 + 1e-6
    answers = defended(adversarial).argmax(1)
    won = (answers != labels) & (answers != 4)
    assert won.any()
    assert (defence.score(made, adversarial)[won] <= 0.3 + 1e-6).all()


def test_robust_prediction_is_the_network_on_squeezed_images():
    made, x = network(), images()
    defended = SqueezedInput(by="median-3").wrap(made)
    assert not defended.abstains
    assert torch.equal(defended(x), made(squeezer("median-3")(x)))
    attacked = PGD(eps=0.1, steps=3)(defended, x, made(x).argmax(1))
    assert (attacked - x).abs().max() <= 0.1 + 1e-6


def test_a_network_is_asked_once_for_each_squeezer():
    asked = []

    def counted(x):
        asked.append(len(x))
        return x.flatten(1)[:, :3]

    x = images()
    joint_score(counted, x, counted(x), [squeezer(name) for name in NAMES])
    assert asked == [4] * 6

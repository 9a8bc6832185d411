"""Randomised smoothing: certificates by the closed form of a linear classifier, bounds by scipy, and its folder."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from robust_nas.attacks import Predictor
from robust_nas.attacks.folding import folded
from robust_nas.defences import Certificates, RandomizedSmoothing, StoredDefence, certified_accuracy
from robust_nas.defences.randomized_smoothing import binomial_p, lower_bound
from robust_nas.errors import ConfigError
from robust_nas.nets import inference_state, read_model, save_model

WEIGHT = torch.tensor([3.0, -1.0, 2.0, 0.5])
SHAPE = (1, 2, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(bias=0.0, weight=WEIGHT):
    """Return a classifier of two classes with logits (0, w.x + b); class 1 where that is positive."""
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(4), weight]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def at_distance(distance):
    """Return an image whose distance to the boundary of `linear()` is that, on the side of class 1."""
    return (distance * WEIGHT / WEIGHT.norm()).view(1, *SHAPE)


def certified(smoothing, network, images, seed=0):
    return smoothing.certify(smoothing.wrap(network), images, generator(seed))


def test_the_radius_of_a_linear_classifier_exceeds_the_distance_to_its_boundary_at_rate_alpha():
    smoothing = RandomizedSmoothing(sigma=0.5, n0=20, n=200, alpha=0.1)
    distances = torch.linspace(0.3, 0.7, 250)
    images = torch.cat([at_distance(float(d)) for d in distances])
    found = certified(smoothing, linear(), images)
    assert set(found.classes.tolist()) == {1}
    too_large = int((found.radii > distances).sum())
    assert too_large <= stats.binom.ppf(0.999, len(images), smoothing.alpha)
    assert too_large > 0  # the bound is no looser than it has to be
    assert found.norm == "l2"


def test_the_radius_of_a_linear_classifier_converges_to_the_distance_to_its_boundary():
    gaps = []
    for n in (100, 1000, 20_000):
        smoothing = RandomizedSmoothing(sigma=0.25, n=n, batch_size=5000)
        gaps.append(0.3 - float(certified(smoothing, linear(), at_distance(0.3)).radii))
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.015


def test_votes_are_as_frequent_as_the_margin_says():
    """P(f(x + e) = 1) = Phi(margin / (sigma ||w||))."""
    smoothing = RandomizedSmoothing(sigma=0.5, n=20_000)
    defended = smoothing.wrap(linear(bias=0.7))
    image = torch.rand(SHAPE, generator=generator(3))
    margin = float(WEIGHT @ image.flatten()) + 0.7
    p = stats.norm.cdf(margin / (0.5 * float(WEIGHT.norm())))
    votes = smoothing._votes(defended, image, 20_000, generator())
    assert votes.sum() == 20_000
    assert abs(int(votes[1]) / 20_000 - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (7, 10), (10, 10), (640, 1000)])
@pytest.mark.parametrize("alpha", [0.001, 0.2])
def test_the_bound_is_scipys_clopper_pearson(successes, trials, alpha):
    test = stats.binomtest(successes, trials, alternative="greater")
    expected = test.proportion_ci(confidence_level=1 - alpha, method="exact").low
    assert lower_bound(successes, trials, alpha) == pytest.approx(expected, abs=1e-9)
    if successes:  # its definition: so many or more have probability alpha
        p = lower_bound(successes, trials, alpha)
        assert stats.binom.sf(successes - 1, trials, p) == pytest.approx(alpha, rel=1e-6)


def test_the_coin_is_fair():
    assert binomial_p(5, 5) == pytest.approx(2 * 0.5**5)
    assert binomial_p(2, 4) == 1


def test_a_constant_classifier_has_the_largest_radius_that_its_draws_allow():
    smoothing = RandomizedSmoothing(sigma=0.25, n=50, alpha=0.01)
    found = certified(smoothing, linear(bias=-1e6), torch.rand(2, *SHAPE))
    expected = 0.25 * stats.norm.ppf(0.01 ** (1 / 50))
    assert found.classes.tolist() == [0, 0]
    assert found.radii.tolist() == pytest.approx([expected, expected])


def test_on_the_boundary_it_abstains_but_at_rate_alpha():
    smoothing = RandomizedSmoothing(n0=20, n=100, alpha=0.05)
    images = torch.zeros(200, *SHAPE)
    found = certified(smoothing, linear(), images)
    limit = stats.binom.ppf(0.999, 200, 0.05)
    assert int((found.classes >= 0).sum()) <= limit
    assert bool(((found.radii > 0) == (found.classes >= 0)).all())
    answers = smoothing.predict(smoothing.wrap(linear()), images, generator())
    assert int((answers >= 0).sum()) <= limit


def test_far_from_the_boundary_it_predicts():
    smoothing = RandomizedSmoothing(sigma=0.25, n=100)
    images = torch.cat([at_distance(0.5), at_distance(-0.5)])
    assert smoothing.predict(smoothing.wrap(linear()), images, generator()).tolist() == [1, 0]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_do_not_decide_the_draws(batch_size):
    images = torch.rand(4, *SHAPE, generator=generator(2)) - 0.5
    usual = RandomizedSmoothing(n=60, n0=11, alpha=0.2, batch_size=32)
    other = usual.model_copy(update={"batch_size": batch_size})
    expected = certified(usual, linear(), images)
    found = certified(other, linear(), images)
    draws, defended = generator(), usual.wrap(linear())
    parts = [usual.certify(defended, part, draws) for part in (images[:1], images[1:])]
    for each in (found.radii, torch.cat([part.radii for part in parts])):
        assert torch.equal(each, expected.radii)
    assert torch.equal(found.classes, expected.classes)
    assert not torch.equal(certified(usual, linear(), images, seed=1).radii, expected.radii)


def test_certifying_leaves_network_and_global_draws_as_they_are():
    smoothing, network = RandomizedSmoothing(n=20), linear()
    before, state = torch.get_rng_state(), [p.clone() for p in network.parameters()]
    certified(smoothing, network, torch.rand(2, *SHAPE, generator=generator()))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, network.parameters(), state))
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_draws_without_a_finite_answer_vote_for_nobody():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    smoothing = RandomizedSmoothing(n=20)
    images = torch.zeros(2, *SHAPE)
    assert certified(smoothing, Broken().eval(), images).classes.tolist() == [-1, -1]
    assert smoothing.predict(smoothing.wrap(Broken().eval()), images, generator()).tolist() == [-1, -1]


def test_no_images_have_no_certificates():
    found = certified(RandomizedSmoothing(), linear(), torch.zeros(0, *SHAPE))
    assert found.classes.shape == found.radii.shape == (0,)


def test_what_cannot_certify_is_refused():
    with pytest.raises(ConfigError, match=r"n is 9: at alpha 0.001 so few draws certify nothing"):
        RandomizedSmoothing(n=9)
    assert RandomizedSmoothing(n=10).n == 10
    with pytest.raises(ConfigError, match="training mode"):
        certified(RandomizedSmoothing(), linear().train(), torch.zeros(1, *SHAPE))
    for options in ({"sigma": 0}, {"alpha": 1}, {"alpha": 0}, {"samples": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            RandomizedSmoothing(**options)


def test_the_accuracy_curve_counts_right_certificates_of_that_radius():
    found = Certificates(torch.tensor([0, 1, -1, 1]), torch.tensor([0.5, 0.2, 0.0, 0.9]))
    labels = torch.tensor([0, 1, 0, 0])
    assert certified_accuracy(found, labels, [0, 0.2, 0.3, 0.6]) == [0.5, 0.5, 0.25, 0]
    with pytest.raises(ConfigError, match="got 3 labels for 4 certificates"):
        certified_accuracy(found, labels[:3], [0])
    with pytest.raises(ConfigError, match="got radius -1"):
        certified_accuracy(found, labels, [0.5, -1])


def test_attacks_meet_the_mean_softmax_of_fresh_noisy_draws():
    smoothing = RandomizedSmoothing(sigma=0.3, samples=7)
    network = linear(bias=0.2)
    defended = smoothing.wrap(network)
    assert Predictor.of(defended).samples == 7
    x = torch.rand(5, *SHAPE, generator=generator()).requires_grad_()
    torch.manual_seed(0)
    logits = defended(x)
    torch.manual_seed(0)
    expected = network(x + 0.3 * torch.randn_like(x))
    assert torch.equal(logits, expected)
    assert not torch.equal(defended(x), logits)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    torch.testing.assert_close(gradient.flatten(1), WEIGHT.expand(5, 4))
    kept = folded(defended, x.detach())
    assert kept.network is None
    assert kept.model_form == "as it is: its traced copy gives other logits"


def test_a_folder_of_it_gives_the_same_answers_and_certificates(model_folder, tmp_path):
    model, smoothing = read_model(model_folder), RandomizedSmoothing(n=20, n0=5, alpha=0.2)
    defended = smoothing.wrap(model.network)
    stored = StoredDefence.of(smoothing, {}, None, model.digest)
    description = model.description.model_copy(update={"defence": stored})
    save_model(tmp_path / "defended", model.architecture, inference_state(defended), description)
    found = read_model(tmp_path / "defended")
    images = torch.rand(2, 1, 8, 8, generator=generator())
    one, other = (smoothing.certify(each, images, generator(1)) for each in (defended, found.network))
    assert torch.equal(one.radii, other.radii)
    logits = []
    for each in (defended, found.network):
        torch.manual_seed(0)
        logits.append(each(images))
    assert torch.equal(*logits)

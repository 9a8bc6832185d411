"""Training with noise: on the images, as for randomised smoothing, and before the convolutions, as for RSE."""

from itertools import pairwise

import pytest
import torch
from training_cases import (
    FULL,
    LOSSES,
    assert_resumes,
    generator,
    options,
    residual,
    run_training,
    small_batch,
    small_network,
)

from robust_nas.attacks import PGD
from robust_nas.distributed import Ranks
from robust_nas.errors import ConfigError
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture
from robust_nas.training import (
    AWP,
    JSIGR,
    PGDAT,
    Batch,
    FreeAT,
    GaussianNoise,
    Natural,
    NoiseLayers,
    Standard,
    TrainingContext,
    TrainingHook,
)


def context(network, loss, **more):
    return TrainingContext(network=network, loss=loss, generator=generator(), batch_size=8, **more)


def test_gaussian_noise_has_the_size_it_says_and_is_not_clipped():
    images = torch.full((64, 1, 16, 16), 0.9)
    training = context(small_network(), Natural())
    noise = GaussianNoise(sigma=0.5).start(training).augmented(images) - images
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float(noise.mean())) < 0.02
    assert float((noise + images).max()) > 1.5
    expected = 0.5 * torch.randn(images.shape, generator=generator())
    torch.testing.assert_close(noise, expected)


class Watching(TrainingHook):
    """Keeps the images of every step."""

    def __init__(self):
        self.seen = []

    def before_step(self, batch):
        self.seen.append(batch.images.clone())


def test_steps_get_noisy_images_of_their_own_draws(tmp_path):
    plain, noisy = Watching(), Watching()
    run_training(tmp_path / "plain", options(loss=Natural()), hooks=[plain])
    hooks = [GaussianNoise(sigma=0.5)]
    run_training(tmp_path / "noisy", options(loss=Natural(), hooks=hooks), hooks=[noisy])
    assert len(noisy.seen) == len(plain.seen) == 6
    assert all(images.min() >= 0 and images.max() <= 1 for images in plain.seen)
    assert all(images.min() < -0.3 and images.max() > 1.3 for images in noisy.seen)
    first, second = (images - images.mean() for images in noisy.seen[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"loss": LOSSES["pgd-at"]}, "loss 'pgd-at' attacks the images; it needs a loss of the images as"),
        ({"loss": LOSSES["ladder"]}, "loss 'ladder' fits parts to images without it"),
        ({"loss": Natural(), "step": FreeAT(eps=0.1)}, "but the step moves the images and clips them"),
    ],
    ids=["attack", "parts", "step"],
)
def test_gaussian_noise_is_refused_where_something_else_makes_the_images(recipe, message):
    with pytest.raises(ConfigError, match=message):
        options(hooks=[GaussianNoise()], **recipe)
    assert options(hooks=[GaussianNoise()], loss=JSIGR(grid=4)).hooks == (GaussianNoise(),)


def test_noise_layers_are_in_the_network_in_steps_alone():
    network, batch = small_network(), Batch(*small_batch(), torch.arange(8))
    training = context(network, Natural())
    hook = NoiseLayers(std_init=0.5, std_inner=0.0).start(training)
    seen = []
    network[0].register_forward_hook(lambda module, given, output: seen.append(given[0].clone()))
    for _ in range(2):
        hook.before_step(batch)
        Standard().start(training, [hook]).gradients(batch)
        hook.after_backward()
        assert not network[0]._forward_pre_hooks
    network(batch.images)
    assert torch.equal(seen[2], batch.images)
    assert float((seen[0] - batch.images).std()) == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(seen[0], seen[1])
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_an_inner_attack_meets_the_noise_of_its_own_passes():
    network, batch = small_network(), Batch(*small_batch(), torch.arange(8))
    training = context(network, PGDAT(attack=PGD(eps=0.1, steps=3, keep="last")))
    hook, seen = NoiseLayers(std_init=0.5).start(training), []
    network[0].register_forward_hook(lambda module, given, output: seen.append(given[0].detach().clone()))
    hook.before_step(batch)
    Standard().start(training, [hook]).gradients(batch)
    hook.after_backward()
    assert len(seen) == 4  # three of the attack, one of the step
    assert all((one - other).std() > 0.5 for one, other in pairwise(seen))


@pytest.mark.parametrize("hooks", [[AWP(gamma=0.05), NoiseLayers()], [NoiseLayers(), AWP(gamma=0.05)]])
def test_noise_layers_resume_with_other_hooks_an_average_and_depthwise_convolutions(tmp_path, hooks):
    assert_resumes(tmp_path, options(ema=FULL["ema"], hooks=hooks, epochs=2))


def test_noise_layers_resume_on_a_residual_network(tmp_path):
    assert_resumes(tmp_path, options(hooks=[NoiseLayers()], loss=Natural()), residual)


def test_noise_layers_are_refused_where_they_cannot_be():
    mlp = MLPArchitecture(name="mlp", depth=1, width=4)
    hook = NoiseLayers()
    with pytest.raises(ConfigError, match=r"hook noise-layers: noise layers precede convolutions"):
        hook.refuse_architecture(mlp)
    hook.refuse_architecture(type(mlp))
    hook.refuse_architecture(ResidualArchitecture(name="residual", stem=2, depths=(1,), widths=(2,)))
    with pytest.raises(ConfigError, match="noise-layers: got 2 ranks"):
        hook.start(context(small_network(), Natural(), ranks=Ranks(count=2)))
    with pytest.raises(ConfigError, match=r"training\.hooks: noise-layers: noise layers precede"):
        hook.start(context(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(50, 5)), Natural()))

"""AI-GAN's networks and the generator folder: the bound holds for all weights, every size works, damage is refused."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas import load_generator
from robust_nas.errors import CheckpointError
from robust_nas.nets.ai_gan import Discriminator, Generator, bounded
from robust_nas.nets.generator_folder import (
    DESCRIPTION,
    WEIGHTS,
    GeneratorDescription,
    Victim,
    read_generator,
    save_generator,
)


def size(delta, norm):
    return delta.flatten(1).double().norm(p=math.inf if norm == "linf" else 2, dim=1)


def made(norm="linf", eps=0.1, shape=(1, 8, 8), classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(shape, classes, norm=norm, eps=eps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(scale=st.floats(0, 1e6), eps=st.floats(1e-4, 1), seed=st.integers(0, 9))
def test_no_number_leaves_the_ball(norm, scale, eps, seed):
    u = scale * torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(seed))
    delta = bounded(u, eps, norm)
    assert delta.isfinite().all()
    assert size(delta, norm).max() <= eps * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_weights_leave_the_ball_and_the_gradient_is_finite(norm):
    generator = made(norm)
    x, targets = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3
    for scale in (0.0, 1.0, 1e4):
        with torch.no_grad():
            generator.leave.weight.mul_(0).add_(scale)
        delta = generator(x, targets)
        assert size(delta, norm).max() <= 0.1 * (1 + 1e-6)
        generator.zero_grad()
        delta.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


def test_a_hinge_shortens_an_l2_perturbation_of_a_large_image():
    network = made("l2", eps=2.0, shape=(1, 28, 28))
    x, targets = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3
    before = size(network(x, targets), "l2").mean().item()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(10):
        optimiser.zero_grad()
        (network(x, targets).flatten(1).norm(dim=1) - 1.0).clamp_min(0).mean().backward()
        optimiser.step()
    after = size(network(x, targets), "l2").mean().item()
    assert after < 0.9 * before


@settings(max_examples=8)
@given(channels=st.sampled_from([1, 3]), height=st.integers(8, 17), width=st.integers(8, 17))
def test_every_size_from_8_on_works(channels, height, width):
    shape = (channels, height, width)
    x = torch.rand(2, *shape)
    assert made(shape=shape)(x, torch.tensor([0, 2])).shape == x.shape
    assert Discriminator(channels)(x).shape == (2,)


@pytest.mark.parametrize("side", [28, 32])
def test_the_sizes_of_the_usual_datasets(side):
    shape = (1, side, side)
    assert made(shape=shape)(torch.rand(1, *shape), torch.tensor([1])).shape == (1, *shape)


def test_the_target_decides_the_perturbation_of_a_constant_image_too():
    generator, x = made(), torch.full((3, 1, 8, 8), 0.5)
    delta = generator(x, torch.arange(3))
    assert all((delta[i] - delta[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_first_convolution_is_that_of_the_image_and_of_planes_of_the_one_hot_target():
    generator = made()
    seen = []
    generator.enter.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 1, 8, 8)
    generator(x, torch.tensor([2, 0]))
    planes = torch.tensor([[0.0, 0, 1], [1, 0, 0]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    assert torch.equal(seen[0], torch.cat([x, planes], 1))


def test_the_discriminator_s_layers_stretch_no_direction_by_more_than_one():
    discriminator = Discriminator(1)
    for _ in range(12):  # power iterations
        discriminator(torch.rand(1, 1, 8, 8))
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d):
            largest = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
            torch.testing.assert_close(largest, torch.tensor(1.0), atol=0.05, rtol=0)


@pytest.fixture
def folder(tmp_path):
    description = GeneratorDescription(
        norm="l2",
        eps=0.5,
        input_shape=(1, 8, 8),
        class_names=("a", "b", "c"),
        victim=Victim(name="v", digest="d"),
    )
    save_generator(tmp_path / "made", made("l2", 0.5).state_dict(), description)
    return tmp_path / "made"


def test_a_generator_comes_back_with_its_bits_frozen_and_in_eval_mode(folder):
    found = load_generator(folder)
    x, targets = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    assert torch.equal(found(x, targets), made("l2", 0.5)(x, targets))
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert read_generator(folder).description.victim.digest == "d"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "generator.safetensors is missing"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4]), "truncated"),
        (lambda folder: rewrite(folder, blocks=3), "is foreign"),
        (lambda folder: rewrite(folder, input_shape=[1, 7, 8]), "input_shape"),
        (lambda folder: rewrite(folder, eps=0), "eps"),
        (lambda folder: rewrite(folder, method="advgan"), "method"),
    ],
)
def test_a_damaged_folder_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        load_generator(folder)


def test_weights_that_are_not_finite_are_refused(folder):
    state = made("l2", 0.5).state_dict()
    state["enter.bias"][0] = math.nan
    save_generator(folder, state, read_generator(folder).description)
    with pytest.raises(CheckpointError, match=r"enter\.bias holds NaN"):
        load_generator(folder)


def rewrite(folder, **values):
    path = folder / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

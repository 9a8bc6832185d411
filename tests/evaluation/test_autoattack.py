"""The wrapper on pyautoattack: its answers on linear models, and the side effects that it must not have."""

import logging
import math
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robust_nas.errors import AttackError, ConfigError
from robust_nas.evaluation import AutoAttack
from robust_nas.evaluation.autoattack import run_autoattack, settings

SHAPE = (1, 6, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(classes, seed=3):
    layer = nn.Linear(math.prod(SHAPE), classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(seed)))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


def conv_net(classes=10):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes)
        )
    with torch.no_grad():
        model[4].bias -= model.eval()(torch.full((1, *SHAPE), 0.5))[0]  # no class rules all images
    model[0].weight.grad = torch.ones_like(model[0].weight)
    return model.train()


def right_batch(model, count=12, seed=1):
    """Images that the model gets right in eval mode."""
    images = torch.rand(count, *SHAPE, generator=generator(seed)) * 0.6 + 0.2
    mode = model.training
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    model.train(mode)
    return images, labels


@pytest.mark.parametrize(("norm", "eps", "p"), [("linf", 0.05, 1), ("l2", 0.15, 2)])
def test_targeted_apgd_breaks_exactly_what_no_certificate_covers(norm, eps, p):
    # Linear model: x is robust iff min_j (z_y - z_j - eps ||w_y - w_j||_dual) > 0, the box being far away.
    model, weight = linear(5)
    images, labels = right_batch(model, 48)
    logits = model(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    slack = gaps - eps * (weight[labels][:, None] - weight[None]).norm(p=p, dim=2)
    slack = slack.scatter(1, labels[:, None], math.inf).min(1).values
    attack = AutoAttack(eps=eps, norm=norm, attacks=("apgd-t",))
    outcome = run_autoattack(attack, model, images, labels, seed=0)
    broken = model(outcome.images).argmax(1) != labels
    clear = slack.abs() > 0.01
    assert torch.equal(broken[clear], slack[clear] < 0)
    assert 0 < broken.sum() < 48
    assert torch.equal(outcome.images[~broken], images[~broken])


def test_equals_the_package_called_directly():
    from pyautoattack import AutoAttack as Official

    model = conv_net().eval().requires_grad_(requires_grad=False)
    images, labels = right_batch(model)
    with torch.random.fork_rng():
        official = Official(model, eps=0.05, norm="Linf", seed=7, version="standard")
        official.attacks_to_run = ["apgd-ce", "apgd-t"]
        trace = sys.gettrace()
        expected, _ = official.run_standard_evaluation(images, labels, batch_size=250)
        sys.settrace(trace)
    ours = run_autoattack(
        AutoAttack(eps=0.05, attacks=("apgd-ce", "apgd-t")), model, images, labels, seed=7, batch_size=250
    )
    assert torch.equal(ours.images, expected)


@pytest.mark.parametrize(
    ("norm", "eps", "attacks"),
    [("linf", 0.02, None), ("l2", 0.08, ("apgd-dlr", "apgd-t", "fab", "fab-t"))],
    ids=["standard", "list"],
)
def test_a_suite_leaves_everything_as_it_was(norm, eps, attacks):
    from pyautoattack import checks

    model = conv_net()
    images, labels = right_batch(model, 8)
    images = images.to(memory_format=torch.channels_last)
    logger = logging.getLogger("auto-attack")

    def trace(frame, event, argument):
        return None

    checks.funcs["backward"] = 3  # as after a dynamic model earlier in the process
    before = (
        torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(),
        logger.level, logger.propagate, logger.handlers[:],
    )  # fmt: skip
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        with torch.no_grad():
            attack = AutoAttack(eps=eps, norm=norm, attacks=attacks)
            outcome = run_autoattack(attack, model, images, labels, seed=0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(outer)
        counted, checks.funcs["backward"] = checks.funcs["backward"], 0
    after = (
        torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(),
        logger.level, logger.propagate, logger.handlers[:],
    )  # fmt: skip
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert counted == 3
    assert not any("dynamic" in flag for flag in outcome.flags)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [p.grad is None for p in model.parameters()] == [False, True, True, True, True, True]
    assert (model[0].weight.grad == 1).all()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert outcome.images.dtype == torch.float32
    assert not outcome.images.requires_grad
    delta = (outcome.images - images).flatten(1).norm(p=math.inf if norm == "linf" else 2, dim=1)
    assert delta.max() <= eps + 1e-6
    assert 0 < (delta > 0).sum() < len(images)  # some are left for the last attack of the suite


def test_seed_decides_and_the_value_can_be_called():
    model = conv_net()
    images, labels = right_batch(model)
    attack = AutoAttack(eps=0.05, attacks=("apgd-ce",))
    runs = [run_autoattack(attack, model, images, labels, seed=seed).images for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(
        attack(model, images, labels, generator(4)), attack(model, images, labels, generator(4))
    )


def test_doubts_of_the_package_come_back_as_flags():
    model = nn.Sequential(conv_net(), nn.Softmax(1))
    images, labels = right_batch(model)
    outcome = run_autoattack(AutoAttack(eps=0.05, attacks=("apgd-ce",)), model, images, labels, seed=0)
    assert any("probability distribution" in flag for flag in outcome.flags)


@pytest.mark.parametrize(
    ("attacks", "classes", "least"), [(None, 3, 4), (("apgd-t",), 3, 4), (("apgd-dlr",), 2, 3)]
)
def test_too_few_classes(attacks, classes, least):
    model, _ = linear(classes)
    with pytest.raises(AttackError, match=f"at least {least} classes, the model has {classes}"):
        run_autoattack(AutoAttack(eps=0.1, attacks=attacks), model, *right_batch(model), seed=0)


@pytest.mark.parametrize("name", ["apgd-ce", "fab", "fab-t"])
def test_two_classes_are_enough_for_the_others(name):
    model, weight = linear(2)
    images, labels = right_batch(model)
    eps = 0.05
    logits = model(images).detach()
    gap = (logits[:, 0] - logits[:, 1]).abs() - eps * (weight[0] - weight[1]).abs().sum()
    attack = AutoAttack(eps=eps, attacks=(name,))
    broken = model(run_autoattack(attack, model, images, labels, seed=0).images).argmax(1) != labels
    assert torch.equal(broken, gap < 0)
    assert 0 < broken.sum() < len(labels)


def test_square_in_l2_needs_room():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    attack = AutoAttack(eps=0.1, norm="l2", attacks=("square",))
    with pytest.raises(AttackError, match="4x4"):
        run_autoattack(attack, model, torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), seed=0)


def test_bad_input():
    model, _ = linear(4)
    images, labels = right_batch(model)
    attack = AutoAttack(eps=0.1, attacks=("apgd-ce",))
    with pytest.raises(AttackError, match="float64"):
        run_autoattack(attack, model, images.double(), labels, seed=0)
    with pytest.raises(AttackError, match="only 4 classes"):
        run_autoattack(attack, model, images, labels + 4, seed=0)
    with pytest.raises(ConfigError, match="eps"):
        AutoAttack(eps=0)


def test_settings_name_every_attack_of_the_suite():
    assert list(settings(AutoAttack(eps=0.1), 10)) == ["pyautoattack", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert settings(AutoAttack(eps=0.1), 5)["apgd-t"]["targets"] == 4

"""The wrapper on pyautoattack: its answers on linear models, and the side effects that it must not have."""

import logging
import math
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robust_nas.attacks import AutoAttack, Predictor, official_autoattack
from robust_nas.errors import AttackError, ConfigError

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
    outcome = attack.run(model, images, labels, generator(0))
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
    ours = AutoAttack(eps=0.05, attacks=("apgd-ce", "apgd-t")).run(model, images, labels, generator(7))
    assert torch.equal(ours.images, expected)


@pytest.fixture
def short(monkeypatch):
    """The package's longest attacks take a few steps; what surrounds them is as ever."""
    from pyautoattack import AutoAttack as Official

    whole = Official._set_version

    def few(self, version="standard"):
        whole(self, version)
        self.square.n_queries, self.fab.n_iter = 200, 10
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 30

    monkeypatch.setattr(Official, "_set_version", few)


@pytest.mark.usefixtures("short")
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
            outcome = attack.run(model, images, labels, generator(0))
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
    runs = [attack.run(model, images, labels, generator(seed)).images for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(
        attack(model, images, labels, generator(4)), attack(model, images, labels, generator(4))
    )


def test_doubts_of_the_package_come_back_as_flags():
    model = nn.Sequential(conv_net(), nn.Softmax(1))
    images, labels = right_batch(model)
    outcome = AutoAttack(eps=0.05, attacks=("apgd-ce",)).run(model, images, labels, generator(0))
    assert any("probability distribution" in flag for flag in outcome.flags)


@pytest.mark.parametrize(
    ("attacks", "classes", "least"), [(None, 3, 4), (("apgd-t",), 3, 4), (("apgd-dlr",), 2, 3)]
)
def test_too_few_classes(attacks, classes, least):
    model, _ = linear(classes)
    with pytest.raises(AttackError, match=f"at least {least} classes, the model has {classes}"):
        AutoAttack(eps=0.1, attacks=attacks)(model, *right_batch(model))


@pytest.mark.parametrize("name", ["apgd-ce", "fab", "fab-t"])
def test_two_classes_are_enough_for_the_others(name):
    model, weight = linear(2)
    images, labels = right_batch(model)
    eps = 0.05
    logits = model(images).detach()
    gap = (logits[:, 0] - logits[:, 1]).abs() - eps * (weight[0] - weight[1]).abs().sum()
    attack = AutoAttack(eps=eps, attacks=(name,))
    broken = model(attack.run(model, images, labels, generator(0)).images).argmax(1) != labels
    assert torch.equal(broken, gap < 0)
    assert 0 < broken.sum() < len(labels)


def test_square_in_l2_needs_room():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    attack = AutoAttack(eps=0.1, norm="l2", attacks=("square",))
    with pytest.raises(AttackError, match="4x4"):
        attack(model, torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))


def test_bad_input():
    model, _ = linear(4)
    images, labels = right_batch(model)
    attack = AutoAttack(eps=0.1, attacks=("apgd-ce",))
    with pytest.raises(AttackError, match="float64"):
        attack(model, images.double(), labels)
    with pytest.raises(AttackError, match="only 4 classes"):
        attack(model, images, labels + 4)
    with pytest.raises(ConfigError, match="eps"):
        AutoAttack(eps=0)


def test_settings_name_every_attack_of_the_suite():
    suite = AutoAttack(eps=0.1)
    assert list(suite.settings(10)) == ["pyautoattack", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert suite.settings(5)["apgd-t"]["targets"] == 4
    assert AutoAttack(eps=0.1, version="rand").settings(5)["eot"] == 20


def test_options_that_the_package_does_not_know_are_fixed_and_not_shown():
    attack = AutoAttack(eps=0.1, attacks=("square",))
    assert repr(attack) == (
        "AutoAttack(name='autoattack', eps=0.1, norm='linf', version='standard', attacks=('square',))"
    )
    assert list(attack.model_dump()) == ["name", "eps", "norm", "version", "attacks"]
    for key, value in (("bn", "batch"), ("fold", True), ("precision", "bf16"), ("eot", 2)):
        with pytest.raises(ConfigError, match=key):
            AutoAttack(eps=0.1, **{key: value})


def test_each_part_of_the_suite_says_what_it_is():
    parts = AutoAttack(eps=0.1).parts()
    assert [part.label for part in parts] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert [part.parameter_free for part in parts] == [True, True, False, False]
    assert [part.guided_by for part in parts] == ["gradient"] * 3 + ["queries"]
    assert [part.least_classes for part in parts] == [2, 4, 2, 2]


def never_broken():
    """A linear model of ten classes whose answer no attack of a small eps changes."""
    model, _ = linear(10)
    with torch.no_grad():
        model[1].weight.mul_(0.01)
        model[1].bias.copy_(5.0 * torch.arange(10, 0, -1))
    return model


@pytest.mark.parametrize(
    ("version", "name"),
    [
        *(("standard", name) for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t")),
        ("rand", "apgd-ce"),
    ],
)
def test_the_passes_are_those_of_an_example_that_is_never_broken(version, name):
    model = never_broken()
    images, labels = right_batch(model, 3)
    attack = AutoAttack(eps=0.05, version=version, attacks=(name,))
    result = attack.run(model, images, labels)
    assert torch.equal(result.images, images)
    assert result.backwards == 3 * attack.passes.backward
    assert 0 <= 3 * attack.passes.forward - result.forwards <= 3 * 5


def test_the_passes_of_square_are_its_queries(monkeypatch):
    made, given = official_autoattack._official, []

    def shortened(*arguments):
        official = made(*arguments)
        given.append(official.square.n_queries)
        official.square.n_queries = 60
        return official

    monkeypatch.setattr(official_autoattack, "_official", shortened)
    model = never_broken()
    images, labels = right_batch(model, 3)
    attack = AutoAttack(eps=0.05, attacks=("square",))
    result = attack.run(model, images, labels)
    assert torch.equal(result.images, images)
    assert given == [5000]
    assert result.backwards == 0 == attack.passes.backward
    assert 0 <= 3 * (attack.passes.forward - 5000 + 60) - result.forwards <= 3 * 5


def test_a_generator_that_was_used_gives_other_draws():
    model = conv_net()
    images, labels = right_batch(model)
    attack = AutoAttack(eps=0.05, attacks=("apgd-ce",))
    draws = generator(4)
    first, second = (attack(model, images, labels, draws) for _ in range(2))
    assert torch.equal(first, attack(model, images, labels, generator(4)))
    assert not torch.equal(first, second)
    assert torch.equal(attack.craft(model, images, labels, generator(4)), first)


def test_a_predictor_is_attacked_by_its_module_and_a_rejection_is_refused():
    model = conv_net()
    images, labels = right_batch(model)
    attack = AutoAttack(eps=0.05, attacks=("apgd-ce",))
    assert torch.equal(attack(Predictor(model), images, labels), attack(model, images, labels))
    with pytest.raises(AttackError, match="knows no rejection"):
        attack(Predictor(model, abstains=True), images, labels)

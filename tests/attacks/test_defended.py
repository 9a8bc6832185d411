"""Attacks on defended models: the unaware one, made on the twin, and the joint one on class and rejection."""

import pytest
import torch
from attacked import CLASSES, batch, conv_net, generator, linear
from torch import nn

from robust_nas.attacks import APGD, PGD, Joint, Predictor, Unaware
from robust_nas.attacks.joint import _Weights
from robust_nas.config import check
from robust_nas.defences import Blur, FeatureSqueezing
from robust_nas.errors import AttackError, ConfigError

EPS = 0.15


def detector(threshold=0.3, squeezers=("bit-2",)):
    defence = FeatureSqueezing(squeezers=squeezers)
    network = linear(CLASSES)[0].eval()
    return defence.wrap(network, {"threshold": threshold, "channels": 3})


def wins(model, images, labels):
    answers = model(images).argmax(1)
    return (answers != labels) & (answers != CLASSES)


def accepted(model, count=24):
    """Images that the detector accepts, with the answers of its network as their labels."""
    images, _ = batch(count=4 * count)
    images = images[model(images).argmax(1) != CLASSES][:count]
    return images, model.module(images).argmax(1)


class Wall(nn.Module):
    """Two classes by w x, and a logit "rejected" by the first half of w x alone: only the second half evades it."""

    def __init__(self, eps=EPS):
        super().__init__()
        self.w = torch.randn(192, generator=generator(3))
        self.half = (torch.arange(192) < 96) * self.w
        self.class_lead = 0.4 * eps * self.w.abs().sum()
        self.free = 0.1 * eps * self.half.abs().sum()

    def forward(self, x):
        moved = x.flatten(1) - 0.5
        lead = moved @ self.w - self.class_lead
        logits = torch.stack([0 * lead, lead], 1)
        excess = moved @ self.half - self.free
        return torch.cat([logits, (logits.amax(1) + excess).unsqueeze(1)], 1)


def grey(count=8):
    """Images in the middle of the box, which the wall accepts as class 0."""
    return torch.full((count, 3, 8, 8), 0.5), torch.zeros(count, dtype=torch.long)


# Unaware


def test_unaware_is_the_attack_on_the_twin_judged_on_the_defended_model():
    network = conv_net().eval()
    images, _ = batch(count=16)
    labels = network(images).argmax(1)
    defended = Blur(sigma=2.0).wrap(network)
    inner = PGD(eps=EPS, steps=5)
    made = inner(network, images, labels, generator(3))
    found = Unaware(eps=EPS, attack=inner).run(defended, images, labels, generator(3))
    taken = (found.images == made).flatten(1).all(1)
    assert (taken | (found.images == images).flatten(1).all(1)).all()
    assert taken.any()
    with torch.no_grad():
        broken = defended(made).argmax(1) != labels
        assert (defended(found.images).argmax(1) != labels)[broken].all()
    counted = inner.run(network, images, labels, generator(3))
    assert found.forwards == counted.forwards + 2 * len(images)
    assert found.backwards == counted.backwards


def test_unaware_takes_no_gradient_of_the_defence():
    class Opaque(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled() or not x.requires_grad
            return x

    defended = Blur().wrap(nn.Sequential(linear(CLASSES)[0]))
    defended.forward = lambda x: defended.module(Opaque()(x))
    images, labels = batch()
    Unaware(eps=EPS, attack="pgd")(defended, images, labels)


def test_a_model_without_a_defence_is_refused_or_attacked_itself():
    model = conv_net()
    images, labels = batch()
    with pytest.raises(AttackError, match=r"no defence \(Sequential\).*undefended: attack"):
        Unaware(eps=EPS)(model, images, labels)
    inner = APGD(eps=EPS, steps=4)
    found = Unaware(eps=EPS, attack=inner, undefended="attack")(model, images, labels, generator(1))
    assert torch.equal(found, inner(model, images, labels, generator(1)))


def test_the_inner_attack_inherits_norm_and_eps_and_no_other_is_taken():
    attack = check(Unaware, {"eps": 0.5, "norm": "l2", "attack": {"name": "pgd", "steps": 3}}, "attack")
    assert (attack.attack.eps, attack.attack.norm, attack.label) == (0.5, "l2", "unaware-pgd-3")
    assert Unaware(eps=EPS).label == "unaware-apgd-ce"
    for inner, message in (
        ({"name": "pgd", "eps": 0.1}, "has eps 0.1, the unaware attack 0.5; they must be the same"),
        ({"name": "square"}, "a bounded attack by gradients is needed"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(Unaware, {"eps": 0.5, "attack": inner}, "attack")


# Joint


def test_the_joint_attack_evades_a_detector_that_the_attack_on_the_classes_meets():
    model, (images, labels) = Predictor(Wall(), abstains=True), grey()
    alone = Joint(eps=EPS, steps=20, rounds=1)(model, images, labels)
    joint = Joint(eps=EPS, steps=20, rounds=6)(model, images, labels)
    assert (joint - images).abs().max() <= EPS + 1e-6
    assert (model(alone).argmax(1) != 1).all()
    assert (model(joint).argmax(1) == 1).all()


def test_on_feature_squeezing_it_breaks_at_least_what_the_unaware_attack_breaks():
    model = detector()
    images, labels = accepted(model)
    unaware = Unaware(eps=0.03, attack={"name": "apgd", "steps": 20, "loss": "margin"})
    count = {}
    for attack in (unaware, Joint(eps=0.03, steps=20)):
        count[attack.name] = int(wins(model, attack(model, images, labels), labels).sum())
    assert 0 < count["unaware"] <= count["joint"]


def test_without_a_rejection_every_round_attacks_the_class():
    model = conv_net()
    images, _ = batch()
    labels = model.eval()(images).argmax(1)
    result = Joint(eps=EPS, steps=3, rounds=2, loss="ce").run(model, images, labels, trace=True)
    assert result.loss.shape[1:] == (4, len(images))
    assert result.wrong.shape == result.loss.shape


def test_the_weight_grows_where_the_image_is_rejected_and_falls_where_no_class_is_found():
    weights = _Weights(torch.zeros(3), 1.0)
    weights.update(torch.tensor([True, False, True]))  # of lambda = 0, which bounds nothing
    assert weights.now.tolist() == [1, 1, 1]
    weights.update(torch.tensor([True, False, True]))
    torch.testing.assert_close(weights.now, torch.tensor([10, 0.1, 10]))
    weights.update(torch.tensor([True, True, False]))
    torch.testing.assert_close(weights.now, torch.tensor([100, 0.1**0.5, 10**0.5]))
    weights.update(torch.tensor([True, True, True]))
    torch.testing.assert_close(weights.now, torch.tensor([1000, 0.1**0.25, 10**0.75]))


def test_the_model_s_own_passes_are_all_counted():
    asked = [0]
    model, (images, labels) = Wall(), grey()
    model.register_forward_pre_hook(lambda module, inputs: asked.__setitem__(0, asked[0] + len(inputs[0])))
    attack = Joint(eps=0.01, steps=3, rounds=4)
    result = attack.run(Predictor(model, abstains=True), images, labels)
    assert result.forwards == asked[0] == 8 * attack.passes.forward

"""The protocol on linear models, where the worst case is known, and with attacks made by hand."""

import dataclasses
import json
import math
from typing import Literal

import pytest
import torch
from evaluation_networks import Images, generator, timeless
from torch import nn

import robust_nas
from robust_nas.attacks import FGSM, PGD, AutoAttack, ThreatModel
from robust_nas.attacks.engine import AttackResult
from robust_nas.errors import AttackError, ConfigError
from robust_nas.evaluation import (
    EvaluationOptions,
    InferenceRule,
    Step,
    evaluate,
    follow_protocol,
    report,
)

SHAPE = (1, 3, 3)
EPS = 0.04


def linear(classes=2, seed=3):
    layer = nn.Linear(math.prod(SHAPE), classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(seed)))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


def dataset(model, count=60, wrong=8):
    """Pixels away from the box's ends; the model is right on all but the first `wrong`."""
    pixels = torch.randint(60, 196, (count, *SHAPE), generator=generator(), dtype=torch.uint8)
    labels = model(pixels.float() / 255).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % model[1].out_features
    return Images(pixels, labels)


def options(*steps, **keys):
    threat = {"threat_model": {"norm": "linf", "eps": EPS}}
    return EvaluationOptions.model_validate({**threat, "attacks": list(steps), **keys})


def worst_case(model, weight, images):
    """Which examples no perturbation of eps can break: margin - eps ||w||_1 > 0."""
    logits = model(images.pixels.float() / 255).detach()
    margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * images.labels.float())
    return margin - EPS * (weight[0] - weight[1]).abs().sum() > 0, margin > 0


def order(count, seed=0):
    return torch.randperm(count, generator=generator(seed))


def test_exact_on_a_linear_model():
    model, weight = linear()
    images = dataset(model)
    robust, clean = worst_case(model, weight, images)
    found = follow_protocol(model, images, options({"attack": {"name": "pgd", "steps": 5}}, batch_size=7))
    assert (found.clean.correct, found.clean.images) == (52, 60)
    assert 0 < robust.sum() < clean.sum()
    assert (found.robust.correct, found.robust.images) == (int(robust.sum()), 60)
    assert set(found.rows[0].broken_indices) == set((clean & ~robust).nonzero().flatten().tolist())
    assert set(found.clean_wrong_indices) == set(range(8))
    assert found.rows[0].attacked == 52


class Halfway(FGSM):
    """A weak attack: FGSM on the images of one label, nothing on the others."""

    only: int

    def run(self, model, images, labels, generator=None, *, trace=False):
        result = super().run(model, images, labels, generator, trace=trace)
        chosen = (labels == self.only).view(-1, 1, 1, 1)
        return dataclasses.replace(result, images=torch.where(chosen, result.images, images))


def by_hand(*attacks, threat=None, shares=None):
    """Options with attacks that the YAML does not know."""
    shares = shares or [None] * len(attacks)
    steps = tuple(Step.model_construct(attack=a, images=n) for a, n in zip(attacks, shares, strict=True))
    return EvaluationOptions.model_construct(
        threat_model=threat or ThreatModel(eps=EPS),
        suite=None,
        attacks=steps,
        surrogates=(),
        images=None,
        batch_size=16,
        findings="none",
        checks=(),
        deployed=InferenceRule(),
    )


def test_worst_case_is_per_example_not_the_minimum_of_means():
    model, weight = linear()
    images = dataset(model)
    robust, clean = worst_case(model, weight, images)
    found = follow_protocol(model, images, by_hand(Halfway(eps=EPS, only=0), Halfway(eps=EPS, only=1)))
    first, second = found.rows
    assert first.broken > 0
    assert second.broken > 0
    assert first.broken + second.broken == int((clean & ~robust).sum())
    assert found.robust.correct == int(robust.sum())
    # The second attack got only what the first had left.
    assert second.attacked == first.attacked - first.broken
    assert found.robust == second.common == second.share


def test_smaller_shares_are_prefixes():
    model, weight = linear()
    images = dataset(model)
    robust, clean = worst_case(model, weight, images)
    plan = by_hand(Halfway(eps=EPS, only=0), FGSM(eps=EPS), PGD(eps=EPS, steps=3), shares=[None, 20, 500])
    found = follow_protocol(model, images, plan, seed=4)
    prefix = order(60, 4)[:20]
    assert [row.images for row in found.rows] == [60, 20, 60]
    assert found.clean.correct == int(clean.sum())
    assert found.clean_common.correct == int(clean[prefix].sum())
    assert found.robust.images == 20
    assert found.robust.correct == int(robust[prefix].sum())
    zero_broken = clean & ~robust & (images.labels == 0)
    assert found.rows[0].broken == int(zero_broken.sum())
    assert found.rows[1].attacked == int((clean & ~zero_broken)[prefix].sum())
    assert found.rows[1].share == found.rows[1].common
    assert found.rows[2].broken == int((clean & ~robust & ~zero_broken).sum()) - found.rows[1].broken
    common = [row.common.correct for row in found.rows]
    assert common == sorted(common, reverse=True)


def test_fewer_images_are_a_prefix_too():
    model, _ = linear()
    images = dataset(model)
    small, large = (
        follow_protocol(model, images, options({"attack": {"name": "fgsm"}}, images=count), seed=2)
        for count in (20, 40)
    )
    chosen = set(order(60, 2)[:20].tolist())
    assert small.clean.images == 20
    assert set(small.rows[0].broken_indices) == chosen & set(large.rows[0].broken_indices)


def test_reproducible_by_seed_and_silent_about_the_rest():
    model, _ = linear(5)
    images = dataset(model)
    plan = options(
        {"attack": {"name": "pgd", "steps": 2, "step_size": 0.01}, "images": 30},
        {"attack": {"name": "autoattack", "attacks": ["apgd-ce", "apgd-t"]}, "images": 12},
    )
    noise = torch.get_rng_state()

    def tree(seed):
        return timeless(follow_protocol(model, images, plan, seed=seed).to_dict())

    first = tree(1)
    assert first == tree(1)
    assert first["attacks"][0]["broken_indices"] != tree(2)["attacks"][0]["broken_indices"]
    assert torch.equal(noise, torch.get_rng_state())
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert [row["label"] for row in first["attacks"]] == ["pgd-2", "apgd-ce", "apgd-t"]
    assert first["attacks"][0]["parameters"]["step_size"] == 0.01
    assert first["attacks"][2]["parameters"]["apgd-t"]["targets"] == 4
    assert first["robust"]["images"] == 12
    low, high = first["robust"]["interval"]
    assert 0 <= low <= first["robust"]["accuracy"] <= high <= 1


def test_progress_ends_every_part_at_one():
    model, _ = linear()
    heard = []
    plan = options({"attack": {"name": "fgsm"}}, {"attack": {"name": "pgd"}}, batch_size=25)
    follow_protocol(
        model, dataset(model), plan, progress=lambda name, fraction: heard.append((name, fraction))
    )
    assert list(dict.fromkeys(name for name, _ in heard)) == ["clean", "fgsm", "pgd-10", "findings"]
    assert {name for name, fraction in heard if fraction == 1} == {"clean", "fgsm", "pgd-10", "findings"}


def test_works_in_training_mode_and_under_inference_mode():
    model, _ = linear()
    images = dataset(model)
    noisy = nn.Sequential(model[0], nn.Dropout(0.9), model[1]).train()
    plan = options({"attack": {"name": "pgd", "steps": 3}})
    with torch.inference_mode():
        found = follow_protocol(noisy, images, plan)
    assert noisy.training
    assert found.robust == follow_protocol(model, images, plan).robust


def test_nothing_left_to_attack():
    model, _ = linear()
    images = dataset(model, count=10, wrong=10)
    found = follow_protocol(model, images, options({"attack": {"name": "fgsm"}}))
    assert (found.clean.correct, found.rows[0].attacked, found.robust.correct) == (0, 0, 0)


class Cheat(FGSM):
    """An attack that breaks the rules by `how`."""

    how: Literal["ball", "box", "nan"]

    def run(self, model, images, labels, generator=None, *, trace=False):
        if self.how == "ball":
            images = (images + self.eps + 1e-4).clamp(0, 1)
        else:
            images = images - 2 if self.how == "box" else images * torch.nan
        return AttackResult(images=images, model_form="by hand", forwards=0, backwards=0)


@pytest.mark.parametrize(("how", "message"), [("ball", "more than eps"), ("box", "0..1"), ("nan", "nan")])
def test_perturbations_are_measured_anew(how, message):
    model, _ = linear()
    with pytest.raises(AttackError, match=message):
        follow_protocol(model, dataset(model), by_hand(Cheat(eps=EPS, how=how)))


def test_logits_that_are_not_finite_are_wrong():
    class Exploding(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2), torch.nan) * x.mean()

    model, _ = linear()
    assert (
        follow_protocol(Exploding(), dataset(model), options({"attack": {"name": "fgsm"}})).clean.correct == 0
    )


def test_bad_input_is_refused_before_any_attack(monkeypatch):
    model, _ = linear(3)
    images = dataset(model)
    monkeypatch.setattr(AutoAttack, "run", lambda *a, **k: pytest.fail("an attack started"))
    standard = options({"attack": {"name": "autoattack"}})
    with pytest.raises(AttackError, match="apgd-t needs at least 4 classes"):
        follow_protocol(model, images, standard)
    with pytest.raises(AttackError, match="label 7"):
        follow_protocol(model, Images(images.pixels, images.labels.clamp_min(7)), standard)
    with pytest.raises(AttackError, match="bool"):
        follow_protocol(model, Images(images.pixels.bool(), images.labels), standard)
    with pytest.raises(AttackError, match="int32"):
        follow_protocol(model, Images(images.pixels, images.labels.int()), standard)
    with pytest.raises(AttackError, match="no images"):
        follow_protocol(model, Images(images.pixels[:0], images.labels[:0]), standard)


def test_the_public_call_is_the_protocol_with_its_options_spelled_out():
    model, _ = linear(5)
    images = dataset(model)
    step = Step(attack=PGD(eps=EPS, steps=3))
    found = robust_nas.evaluate(model, images, ThreatModel(eps=EPS), [step], images=30, batch_size=8, seed=3)
    plan = EvaluationOptions(threat_model=ThreatModel(eps=EPS), attacks=(step,), images=30, batch_size=8)
    assert timeless(found.to_dict()) == timeless(follow_protocol(model, images, plan, seed=3).to_dict())
    assert robust_nas.evaluate is evaluate
    quick = evaluate(model, images, ThreatModel(eps=EPS), "quick", images=10)
    assert (quick.to_dict()["suite"], quick.rows[0].label) == ("quick", "pgd-20")


def test_float_pixels_are_judged_as_the_bytes_that_they_are():
    model, _ = linear(5)
    images = dataset(model)
    plan = options({"attack": {"name": "pgd", "steps": 3}})
    trees = [
        timeless(follow_protocol(model, Images(pixels, images.labels), plan).to_dict())
        for pixels in (images.pixels, images.pixels.float() / 255, images.pixels.double() / 255)
    ]
    assert [tree.pop("notes") for tree in trees] == [
        [],
        [],
        ["the images are float64 and are evaluated as float32"],
    ]
    assert trees[0] == trees[1] == trees[2]


def test_the_tree_has_the_schema_that_its_file_tells_of():
    model, _ = linear(5)
    images = dataset(model)
    labels = images.labels
    found = follow_protocol(model, images, options({"attack": {"name": "pgd"}}))
    tree = found.to_dict()
    assert tree["schema_version"] == 2
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    for key in (
        "threat_model",
        "suite",
        "deployed",
        "seed",
        "device",
        "dtype",
        "batch_size",
        "classes",
        "chance",
    ):
        assert f"{key}" in report.__doc__
        assert key in tree
    assert tree["classes"] == 5
    assert tree["chance"] == max(0.2, float(labels.bincount().max()) / len(labels))
    row = tree["attacks"][0]
    assert set(row) == {
        "label", "attack", "parameters", "how", "images", "attacked", "broken", "own", "share", "common",
        "seconds", "forwards", "backwards", "broken_indices", "trace", "runs",
    }  # fmt: skip
    assert PGD(eps=EPS).label == row["label"]
    assert eval(row["attack"], {"PGD": PGD}) == PGD(eps=EPS)  # noqa: S307 - what prints itself is enough to run it
    # PGD-10 from a random start, with the clean image as a candidate: 10 gradients, 2 forwards, 1 to judge.
    assert (row["forwards"], row["backwards"]) == (13 * row["attacked"], 10 * row["attacked"])
    assert tree["passes"] == row["forwards"] + row["backwards"]
    assert [point["step"] for point in row["trace"]] == list(range(11))
    still = [point["still_right"] for point in row["trace"]]
    assert still == sorted(still, reverse=True)
    assert still[-1] == pytest.approx(1 - row["broken"] / row["attacked"])
    assert tree["findings_passes"] <= tree["passes"]
    assert tree["eps_curve"] == [] or tree["eps_curve"][0]["eps"] == 0


# Options


def test_attacks_inherit_the_threat_model():
    plan = options(
        {"attack": {"name": "pgd", "steps": 20}}, {"attack": {"name": "autoattack"}, "images": 128}
    )
    assert [(step.attack.eps, step.attack.norm) for step in plan.attacks] == [(EPS, "linf")] * 2
    mixed = EvaluationOptions(
        threat_model=ThreatModel(eps="8/255", norm="l2"), attacks=[{"attack": {"name": "pgd"}}]
    )
    assert mixed.attacks[0].attack == PGD(eps=8 / 255, norm="l2")


@pytest.mark.parametrize(
    "make",
    [
        lambda: options({"attack": {"name": "pgd", "eps": 0.3}}),
        lambda: options({"attack": {"name": "pgd", "norm": "l2"}}),
        lambda: EvaluationOptions(threat_model=ThreatModel(eps=EPS), attacks=(Step(attack=FGSM(eps=0.3)),)),
        lambda: EvaluationOptions(
            threat_model=ThreatModel(eps=EPS), attacks=(Step(attack=AutoAttack(eps=0.3)),)
        ),
    ],
)
def test_attacks_of_another_threat_model_are_refused(make):
    with pytest.raises((ConfigError, ValueError), match="the threat model"):
        make()


class Moved(nn.Module):
    """A model of images that are moved by a half, themselves or a copy of them."""

    def __init__(self, model, in_place):
        super().__init__()
        self.model, self.in_place = model, in_place

    def forward(self, x):
        return self.model((x.add_(0.5) if self.in_place else x + 0.5) - 0.5)


@pytest.mark.parametrize("attack", ["pgd", "autoattack"])
def test_a_model_may_change_its_input_in_place(attack):
    model, _ = linear()
    images = dataset(model)
    listed = {"name": attack} | ({"attacks": ["apgd-ce"]} if attack == "autoattack" else {})
    asked = options({"attack": listed}, images=12, findings="full")
    copied, in_place = (follow_protocol(Moved(model, way), images, asked).to_dict() for way in (False, True))
    assert timeless(copied) == timeless(in_place)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # people have such files all the same
def test_a_frozen_script_is_judged_as_the_module_that_it_was_made_of():
    model, _ = linear()
    images = dataset(model)
    asked = options({"attack": {"name": "pgd"}}, findings="none")
    frozen = torch.jit.freeze(torch.jit.trace(model.eval(), images.pixels[:1].float()))
    assert follow_protocol(frozen, images, asked).robust == follow_protocol(model, images, asked).robust

"""The attack `ai-gan`: its candidates, its draws, the passes it takes, and for whom a generator is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from attacked import CLASSES, SHAPE, answered, batch, conv_net, distance, generator, logits_of
from suite import EPS, made_generator
from torch import nn

from robust_nas.attacks import AIGAN, ThreatModel, Transfer, inherit, training_attack_field
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.attacks.losses import margin
from robust_nas.errors import AttackError, ConfigError
from robust_nas.nets.digest import model_digest
from robust_nas.nets.generator_folder import load_generator
from robust_nas.training import PGDAT

EPSILON = EPS["linf"]


@pytest.fixture(scope="module")
def victim():
    return conv_net().eval()


@pytest.fixture
def folder(victim, tmp_path):
    return made_generator(tmp_path / "made", victim=model_digest(victim))


def attack(folder, **options):
    return AIGAN(**{"eps": EPSILON, "generator": folder, **options})


def candidates(folder, images, labels):
    """The images and, for every class but the label, what the generator makes of them, `[K, B, C, H, W]`."""
    made = load_generator(folder)
    towards = ((labels + offset) % CLASSES for offset in range(1, CLASSES))
    return torch.stack([images, *((images + made(images, aim)).clamp(0, 1) for aim in towards)])


def test_the_best_of_all_targets_and_of_the_image_by_the_margin(victim, folder):
    images, _ = batch(count=20)
    labels = answered(victim, images)
    every = candidates(folder, images, labels)
    scores = torch.stack([margin(logits_of(victim, x), labels) for x in every])
    found = attack(folder)(victim, images, labels)
    best = margin(logits_of(victim, found), labels)
    torch.testing.assert_close(best, scores.amax(0))
    assert (scores.argmax(0) > 0).any()


def test_a_random_target_is_never_the_label_and_every_other_one_is_drawn(victim, folder):
    images, labels = batch(count=60)
    every = candidates(folder, images, labels)
    found = attack(folder, targets="random", keep="last")(victim, images, labels, generator(3))
    same = (every - found).abs().flatten(2).amax(2) < 1e-6  # [K, B]
    assert same[1:].any(0).all()
    assert same[1:].any(1).all()
    assert not torch.equal(
        found, attack(folder, targets="random", keep="last")(victim, images, labels, generator(4))
    )


def test_a_batch_that_is_split_gets_the_same_targets(victim, folder):
    images, labels = batch(count=6)
    one = attack(folder, targets="random", keep="last", transfer=True)
    draws = BatchGenerator()
    draws.manual_seed(5)
    draws.whole, draws.rows = 6, slice(0, 6)
    whole = one.craft(victim, images, labels, draws)
    draws.manual_seed(5)
    draws.rows = slice(2, 5)
    part = one.craft(victim, images[2:5], labels[2:5], draws)
    torch.testing.assert_close(part, whole[2:5], atol=1e-6, rtol=0)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.seen = conv_net().eval(), 0

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, CLASSES),
        ({"targets": "random"}, 2),
        ({"keep": "last"}, CLASSES - 1),
        ({"targets": "random", "keep": "last"}, 0),
    ],
)
def test_the_model_s_passes_are_counted_and_the_generator_s_are_not(folder, options, passes):
    model = Counting()
    images, labels = batch()
    one = attack(folder, transfer=True, **options)
    result = one.run(model, images, labels)
    assert (result.forwards, result.backwards) == (passes * len(images), 0)
    assert model.seen == passes * len(images)
    assert one.passes == (passes, 0)


# For whom a generator is


def test_another_victim_is_refused_but_as_a_transfer_attack(victim, folder):
    images, labels = batch()
    attack(folder)(victim, images, labels)
    other = conv_net(seed=1).eval()
    with pytest.raises(AttackError, match=r"another victim, nobody of digest [0-9a-f]{16}; .* transfer=true"):
        attack(folder)(other, images, labels)
    found = attack(folder, transfer=True)(other, images, labels)
    assert distance("linf", found - images).max() <= EPSILON + 1e-6


def test_a_victim_that_was_written_to_since_is_another_one(folder, tmp_path):
    model = conv_net().eval()
    images, labels = batch()
    attack(folder)(model, images, labels)
    before = model[0].weight[0, 0, 0, 0].item()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(AttackError, match="another victim"):
        attack(folder)(model, images, labels)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = before
    attack(folder)(model, images, labels)


def test_another_norm_or_eps_is_refused(victim, folder):
    images, labels = batch()
    for one, message in (
        (attack(folder, norm="l2"), r"trained in linf, norm is 'l2'; allowed: linf"),
        (attack(folder, eps=0.05), r"trained for eps 0\.1, eps is 0\.05 .*allowed: eps 0\.1, or share=0\.5"),
        (attack(folder, transfer=True, eps=0.05), r"share=0\.5"),
        (attack(folder, share=0.5), r"allowed: eps 0\.05, or share=1"),
    ):
        with pytest.raises(AttackError, match=message):
            one(victim, images, labels)
        with pytest.raises(AttackError, match=message):
            one.refuse_undefined(CLASSES, SHAPE)


def test_the_share_that_a_refusal_names_is_taken_as_it_is_typed(victim, tmp_path):
    images, labels = batch()
    place = made_generator(tmp_path / "wide", eps=0.3, victim=model_digest(victim))
    with pytest.raises(AttackError) as refused:
        AIGAN(generator=place, eps=0.1)(victim, images, labels)
    share = float(str(refused.value).split("or share=")[1].split(",")[0])
    assert share != 1 / 3
    AIGAN(generator=place, eps=0.1, share=share)(victim, images, labels)


def test_a_generator_that_changed_is_refused_before_anything_starts(victim, tmp_path):
    place = made_generator(tmp_path / "changing", victim=model_digest(victim))
    attack = AIGAN(generator=place, eps=EPS["linf"])
    attack.refuse_undefined(CLASSES, SHAPE)
    made_generator(tmp_path / "changing", victim=model_digest(victim), seed=1)
    with pytest.raises(AttackError, match="has changed since its digest was taken"):
        attack.refuse_undefined(CLASSES, SHAPE)


def test_a_share_of_eps_scales_the_perturbation(victim, folder):
    images, labels = batch(low=0.2, high=0.8)
    whole = attack(folder, targets="random", keep="last")
    half = whole.scaled(0.5)
    assert (half.eps, half.share) == (0.05, 0.5)
    far, near = (one(victim, images, labels) - images for one in (whole, half))
    torch.testing.assert_close(near, far / 2, atol=1e-6, rtol=0)


def test_other_images_and_classes_are_refused(victim, tmp_path):
    images, labels = batch()
    digest = model_digest(victim)
    for name, options, message in (
        ("shape", {"shape": (3, 9, 8)}, r"takes images of shape \(3, 9, 8\), these are \(3, 8, 8\)"),
        ("classes", {"classes": 6}, r"aims at 6 classes, the model has 5"),
    ):
        one = attack(made_generator(tmp_path / name, victim=digest, **options))
        with pytest.raises(AttackError, match=message):
            one(victim, images, labels)
        with pytest.raises(AttackError, match=message):
            one.refuse_undefined(CLASSES, SHAPE)


def test_a_folder_without_a_generator_is_refused_when_the_options_are_read(tmp_path):
    with pytest.raises(ConfigError, match=r"generator: .*no generator folder, generator\.json is missing"):
        attack(str(tmp_path))
    with pytest.raises(ConfigError, match="generator: missing"):
        AIGAN(eps=0.1)


def test_a_generator_that_changed_since_is_refused(victim, folder, tmp_path):
    images, labels = batch()
    one = attack(folder)
    one(victim, images, labels)
    path = Path(folder) / "generator.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "made_by": {"seed": 1}}))
    with pytest.raises(AttackError, match="has changed since its digest was taken"):
        one(victim, images, labels)
    shutil.rmtree(folder)


# Where it is used


def test_in_training_the_victim_may_be_another_and_the_last_iterate_is_taken(folder):
    with inherit(ThreatModel(eps=EPSILON)):
        loss = PGDAT.model_validate({"attack": {"name": "ai-gan", "generator": folder, "targets": "random"}})
    assert (loss.attack.transfer, loss.attack.keep, loss.attack.eps) == (True, "last", EPSILON)
    assert loss.passes == 3  # those of the step
    model = conv_net()
    images, labels = batch()
    loss(model, images, labels, generator()).loss.backward()
    assert training_attack_field().allows(AIGAN)


def test_a_job_that_makes_its_networks_takes_it_as_a_transfer_alone(folder):
    with pytest.raises(AttackError, match=r"has yet to make; transfer=true"):
        attack(folder).refuse_new_models()
    attack(folder, transfer=True).refuse_new_models()


def test_transfer_runs_it_on_the_generator_s_own_victim(folder):
    options = {
        "surrogates": ("somewhere",),
        "eps": EPSILON,
        "attack": {"name": "ai-gan", "generator": folder},
    }
    assert Transfer.model_validate(options).label == "transfer-ai-gan"


def test_a_report_names_the_victim(folder, victim):
    found = attack(folder)
    assert found.settings(CLASSES) == {
        "trained_for": "nobody",
        "trained_for_digest": model_digest(victim)[:16],
    }
    assert attack(folder, transfer=True, targets="random").label == "ai-gan-random-transferred"
    assert folder in repr(found)
    assert len(found.digest) == 16

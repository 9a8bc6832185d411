"""The contract that every attack keeps, whatever its family: its images, its draws, and what it leaves alone."""

import random
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attacked import (
    CLASSES,
    answered,
    assert_same_state,
    batch,
    conv_net,
    distance,
    generator,
    logits_of,
    state,
    undecided_net,
)
from suite import ATTACKS, best_of_all, can_fold, changed, every_attack, has_bf16, is_random

from robust_nas.attacks import ATTACKS as REGISTRY
from robust_nas.attacks import LatentBoundary, Transfer
from robust_nas.errors import AttackError

pytestmark = pytest.mark.usefixtures("surrogate", "few_iterations")


def test_every_attack_of_the_registry_is_in_the_suite():
    named = {REGISTRY.get(name) for name in REGISTRY.built_in}
    assert {type(attack) for attack in ATTACKS.values()} == named
    with_norm = {(type(attack), attack.norm) for attack in ATTACKS.values()}
    for attack in named:
        assert set(attack.norms) <= set(get_args(attack.model_fields["norm"].annotation))
        for norm in attack.norms:
            assert (attack, norm) in with_norm


# The images

FIRST = {}  # by attack


def first_of(attack):
    """What the attack makes of the undecided network's images by the generator of seed 0; made once."""
    if id(attack) not in FIRST:
        model, (images, _) = undecided_net(), batch()
        FIRST[id(attack)] = attack(model, images, answered(model, images), generator())
    return FIRST[id(attack)]


def half_wrong():
    """A network, images, and labels of which more than a third are wrong."""
    model, (images, _) = conv_net(), batch(count=24)
    labels = answered(model, images)
    labels[::3] = (labels[::3] + 1) % CLASSES
    return model, images, labels


LOW = {}  # by attack


def in_low_precision(attack):
    """What the attack makes of those with candidates in bf16; made once."""
    if id(attack) not in LOW:
        LOW[id(attack)] = changed(attack, precision="bf16")(*half_wrong(), generator())
    return LOW[id(attack)]


@every_attack
def test_stays_in_ball_and_box_and_leaves_everything_as_it_was(attack):
    model = undecided_net()
    images, _ = batch()
    labels = answered(model, images)
    kept, kept_labels, before = images.clone(), labels.clone(), state(model)
    noise = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    adversarial = FIRST[id(attack)] = attack(model, images, labels, generator())
    moved = distance(attack.norm, adversarial - images)
    assert moved.max() <= attack.radius + 1e-6
    # What decodes images finds none for a model of one answer; `test_ladder.py` has others.
    assert moved.max() > 0 or not attack.bounded
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad
    assert adversarial.dtype == images.dtype
    assert adversarial.is_contiguous()
    assert torch.equal(images, kept)
    assert torch.equal(labels, kept_labels)
    assert not images.requires_grad
    assert_same_state(before, state(model))
    assert torch.equal(noise[0], torch.get_rng_state())
    assert noise[1] == random.getstate()
    assert (noise[2] == np.random.get_state()[1]).all()


@every_attack
def test_no_budget_returns_the_image(attack):
    if attack.external or isinstance(attack, LatentBoundary):  # it has no eps at all
        with pytest.raises(ValueError, match="eps"):
            changed(attack, eps=0.0)
        return
    model = conv_net()
    images, _ = batch()
    unmoved = changed(attack, eps=0.0)(model, images, answered(model, images), generator())
    assert torch.equal(unmoved, images)


@best_of_all
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_never_worse_than_the_image_itself(attack, precision):
    if attack.bn == "batch":
        pytest.skip("judged by the statistics of the batch, which the attack changes")
    if precision == "bf16" and not has_bf16(attack):
        pytest.skip("it runs in float32 alone")
    model, images, labels = half_wrong()
    plain = precision == "float32"
    adversarial = attack(model, images, labels, generator()) if plain else in_low_precision(attack)
    before, after = logits_of(model, images), logits_of(model, adversarial)
    was_wrong, is_wrong = before.argmax(1) != labels, after.argmax(1) != labels
    assert is_wrong[was_wrong].all()
    # Where the attack ranks by cross-entropy, that does not fall either, up to the rounding of the folded copy.
    if getattr(attack, "loss", "") == "ce" and plain:
        gain = F.cross_entropy(after, labels, reduction="none") - F.cross_entropy(
            before, labels, reduction="none"
        )
        assert (gain >= -1e-5)[was_wrong == is_wrong].all()


@best_of_all
def test_never_worse_in_the_caller_s_autocast(attack):
    if attack.bn == "batch":
        pytest.skip("judged by the statistics of the batch, which the attack changes")
    model, images, labels = half_wrong()
    with torch.autocast("cpu", torch.bfloat16):
        adversarial = attack(model, images, labels, generator())
    assert adversarial.dtype == torch.float32
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    wrong = logits_of(model, adversarial).argmax(1) != labels
    assert wrong[logits_of(model, images).argmax(1) != labels].all()


@every_attack
def test_float64_stays_float64_and_the_folded_copy_gives_the_same_verdicts(attack):
    model = conv_net().double()
    images, _ = batch(count=12)
    labels = answered(model, images.double())
    images = images.double()
    if attack.external:
        with pytest.raises(AttackError, match="float64"):
            attack(model, images, labels)
        return
    if not can_fold(attack):
        with pytest.raises(ValueError, match="fold"):
            changed(attack, fold=True)
        result = attack.run(model, images, labels, generator())
        assert result.images.dtype == torch.float64
        assert distance(attack.norm, result.images - images).max() <= attack.radius + 1e-12
        return
    copied = changed(attack, fold=True).run(model, images, labels, generator())
    plain = changed(attack, fold=False).run(model, images, labels, generator())
    assert copied.model_form == ("folded" if attack.bn == "eval" else "as it is: with batch statistics")
    assert plain.model_form == "as it is: not asked to fold"
    for result in (copied, plain):
        assert result.images.dtype == torch.float64
        assert distance(attack.norm, result.images - images).max() <= attack.radius + 1e-12
    verdicts = [logits_of(model, result.images).argmax(1) != labels for result in (copied, plain)]
    assert torch.equal(*verdicts)


@every_attack
def test_bf16_candidates_stay_in_the_ball(attack):
    if not has_bf16(attack):
        with pytest.raises(ValueError, match="precision"):
            changed(attack, precision="bf16")
        return
    _, images, _ = half_wrong()
    adversarial = in_low_precision(attack)
    assert adversarial.dtype == torch.float32
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    assert 0 <= adversarial.min() <= adversarial.max() <= 1


# The generator and the caller


@every_attack
def test_deterministic_by_generator_also_under_no_grad_and_inference_mode(attack):
    model = undecided_net()
    images, _ = batch()
    labels = answered(model, images)
    first = first_of(attack)
    if is_random(attack):
        assert not torch.equal(first, attack(model, images, labels, generator(6)))
    with torch.no_grad():  # without a generator, that of seed 0
        assert torch.equal(first, attack(model, images, labels))
    with torch.inference_mode():
        inside = attack(model, images.clone(), labels.clone(), generator(0))
    assert torch.equal(first, inside)


@every_attack
def test_channels_last_images_come_back_so_and_the_draw_is_the_same(attack):
    model = undecided_net()
    images, _ = batch()
    labels = answered(model, images)
    first = first_of(attack)
    second = attack(model, images.to(memory_format=torch.channels_last), labels, generator())
    assert second.is_contiguous(memory_format=torch.channels_last)
    assert distance(attack.norm, second - images).max() <= attack.radius + 1e-6
    # Convolutions may round differently by layout, which flips the sign of a gradient next to zero.
    assert ((first - second).abs() < 1e-4).float().mean() > 0.98


@every_attack
def test_an_exception_leaves_the_model_as_it_was(attack):
    model = conv_net()
    before = state(model)

    def fail(module, inputs):
        raise RuntimeError("on purpose")

    model[8].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        attack(model, *batch())
    assert_same_state(before, state(model))


@every_attack
def test_what_it_took_is_counted(attack):
    model = undecided_net()
    images, _ = batch()
    labels = answered(model, images)
    seen = [0]

    def count(module, inputs):
        seen[0] += len(inputs[0])

    model.register_forward_pre_hook(count)  # a model with hooks is attacked as it is: every pass is seen
    result = attack.run(model, images, labels, generator())
    if isinstance(attack, Transfer | LatentBoundary):  # those of the surrogates count too
        assert result.forwards > seen[0]
    else:
        # Another package is first asked for the number of classes, with one image.
        assert result.forwards == seen[0] - attack.external
    if attack.query_budget is None:
        assert result.queries is None
    else:  # of each image, which add up to the passes where the model itself answers
        assert result.queries.shape == labels.shape
        assert result.queries.sum() == seen[0]
        assert result.queries.max() <= attack.query_budget


# Where it runs


@every_attack
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda(attack):
    model = conv_net().cuda()
    images, _ = batch()
    labels = answered(model.cpu(), images).cuda()
    model, images = model.cuda(), images.cuda()
    noise = torch.cuda.get_rng_state()
    adversarial = attack(model, images, labels, generator(device="cuda"))
    assert adversarial.device == images.device
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    assert torch.equal(adversarial, attack(model, images, labels, generator(device="cuda")))
    assert torch.equal(noise, torch.cuda.get_rng_state())
    with pytest.raises(AttackError, match="generator lives on cpu"):
        attack(model, images, labels, generator())

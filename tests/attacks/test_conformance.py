"""The contract that every attack keeps, whatever its family: one suite, every option value of `AnyAttack`."""

import contextlib
import os
import random
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attacked import (
    CLASSES,
    SHAPE,
    answered,
    assert_same_state,
    batch,
    conv_net,
    distance,
    generator,
    linear,
    logits_of,
    state,
)
from torch import nn

from robust_nas.attacks import (
    APGD,
    FGSM,
    FGSMRS,
    NFGSM,
    PGD,
    AnyAttack,
    CarliniWagner,
    DeepFool,
    Noise,
    Predictor,
    Square,
    Transfer,
)
from robust_nas.errors import AttackError
from robust_nas.nets import ModelDescription, build_network, inference_state, save_model
from robust_nas.spaces import Size, load_space, sample

EPS = {"linf": 0.1, "l2": 1.0}
NORMS = ("linf", "l2")
SURROGATE = "surrogate"  # a model folder in the working folder of this suite


def losses(attack):
    return get_args(attack.model_fields["loss"].annotation)


ATTACKS = {
    "fgsm-rs": FGSMRS(eps=EPS["linf"]),
    "fgsm-rs-best": FGSMRS(eps=EPS["linf"], keep="best"),
    "n-fgsm": NFGSM(eps=EPS["linf"], noise=2.0),
    "cw": CarliniWagner(steps=15, search_steps=2, learning_rate=0.1, weight=10.0),
    "cw-eps": CarliniWagner(eps=2.0, steps=15, search_steps=2, learning_rate=0.1, weight=10.0),
    "cw-confidence": CarliniWagner(steps=15, search_steps=2, learning_rate=0.1, weight=10.0, confidence=0.1),
    "pgd-restarts-last": PGD(eps=EPS["linf"], steps=2, restarts=3, keep="last"),
    "pgd-momentum": PGD(eps=EPS["l2"], norm="l2", steps=3, momentum=0.9),
    "pgd-eot": PGD(eps=EPS["linf"], steps=2, eot=2),
    "pgd-targets": PGD(eps=EPS["l2"], norm="l2", steps=2, loss="ce-targeted", targets=3, restarts=2),
    "pgd-batch": PGD(eps=EPS["linf"], steps=2, bn="batch"),
    "pgd-dlr-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="dlr"),
    "pgd-kl-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="kl", keep="last"),
}
for _norm in NORMS:
    _common = {"eps": EPS[_norm], "norm": _norm}
    ATTACKS |= {
        f"fgsm-{_norm}": FGSM(**_common),
        f"pgd-last-{_norm}": PGD(steps=3, keep="last", **_common),
        f"pgd-restarts-{_norm}": PGD(steps=2, restarts=3, **_common),
        f"apgd-restarts-{_norm}": APGD(steps=4, restarts=2, **_common),
        f"deepfool-{_norm}": DeepFool(norm=_norm, steps=10),
        f"deepfool-eps-{_norm}": DeepFool(steps=10, candidates=3, **_common),
        f"square-{_norm}": Square(queries=20, **_common),
        f"square-restarts-{_norm}": Square(queries=6, restarts=3, **_common),
        f"noise-{_norm}": Noise(draws=4, **_common),
        f"transfer-{_norm}": Transfer(
            surrogates=(SURROGATE,), attack={"name": "pgd", "steps": 2, "loss": "margin"}, **_common
        ),
        **{f"pgd-{loss}-{_norm}": PGD(steps=3, loss=loss, **_common) for loss in losses(PGD)},
        **{f"apgd-{loss}-{_norm}": APGD(steps=6, loss=loss, **_common) for loss in losses(APGD)},
    }
ATTACKS["transfer-two"] = Transfer(
    eps=EPS["linf"], surrogates=(SURROGATE, SURROGATE), attack={"name": "apgd", "steps": 2, "fold": False}
)
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
best_of_all = pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS.values() if getattr(attack, "keep", "best") == "best"],
    ids=[name for name, attack in ATTACKS.items() if getattr(attack, "keep", "best") == "best"],
)


@pytest.fixture(scope="module", autouse=True)
def surrogate(tmp_path_factory):
    """The model folder that the transfer attacks name, in the working folder."""
    folder = tmp_path_factory.mktemp("conformance")
    architecture = sample(load_space("dsara"), 0, size=Size(cells=3, channels=2))
    description = ModelDescription(
        input_shape=SHAPE, class_names=tuple("abcde"), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3)
    )
    network = build_network(
        architecture,
        input_shape=SHAPE,
        classes=CLASSES,
        mean=description.mean,
        std=description.std,
        seed=1,
    )
    save_model(folder / SURROGATE, architecture, inference_state(network), description)
    with contextlib.chdir(folder):
        yield folder / SURROGATE


def is_random(attack):
    """Whether the draws of the generator show in the images: plain gradients and starts have none."""
    return not isinstance(attack, FGSM | CarliniWagner | DeepFool)


def changed(attack, **values):
    """The attack with other options, of the inner attack too."""
    tree = attack.model_dump()
    if isinstance(attack, Transfer):
        tree["attack"] |= {key: value for key, value in values.items() if key in ("eps", "norm")}
    return type(attack).model_validate(tree | values)


def test_every_attack_of_the_union_is_in_the_suite():
    named = set(get_args(get_args(AnyAttack)[0]))
    assert {type(attack) for attack in ATTACKS.values()} == named
    with_norm = {(type(attack), attack.norm) for attack in ATTACKS.values()}
    for attack in named:
        for norm in get_args(attack.model_fields["norm"].annotation):
            assert (attack, norm) in with_norm


# The images


@every_attack
def test_stays_in_ball_and_box_and_leaves_everything_as_it_was(attack):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    kept, kept_labels, before = images.clone(), labels.clone(), state(model)
    noise = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    adversarial = attack(model, images, labels, generator())
    moved = distance(attack.norm, adversarial - images)
    assert moved.max() <= attack.radius + 1e-6
    assert moved.max() > 0
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
    model = conv_net()
    images, _ = batch()
    unmoved = changed(attack, eps=0.0)(model, images, answered(model, images), generator())
    assert torch.equal(unmoved, images)


@best_of_all
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_never_worse_than_the_image_itself(attack, precision):
    if attack.bn == "batch":
        pytest.skip("judged by the statistics of the batch, which the attack changes")
    model = conv_net()
    images, _ = batch(count=24)
    labels = answered(model, images)
    labels[::3] = (labels[::3] + 1) % CLASSES
    adversarial = changed(attack, precision=precision)(model, images, labels, generator())
    before, after = logits_of(model, images), logits_of(model, adversarial)
    was_wrong, is_wrong = before.argmax(1) != labels, after.argmax(1) != labels
    assert is_wrong[was_wrong].all()
    # Where the attack ranks by cross-entropy, that does not fall either, up to the rounding of the folded copy.
    if getattr(attack, "loss", "") == "ce" and precision == "float32":
        gain = F.cross_entropy(after, labels, reduction="none") - F.cross_entropy(
            before, labels, reduction="none"
        )
        assert (gain >= -1e-5)[was_wrong == is_wrong].all()


@best_of_all
def test_never_worse_in_the_caller_s_autocast(attack):
    if attack.bn == "batch":
        pytest.skip("judged by the statistics of the batch, which the attack changes")
    model = conv_net()
    images, _ = batch(count=24)
    labels = answered(model, images)
    labels[::3] = (labels[::3] + 1) % CLASSES
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
    copied = attack.run(model, images, labels, generator())
    plain = changed(attack, fold=False).run(model, images, labels, generator())
    assert copied.how == ("folded" if attack.bn == "eval" else "as it is: with batch statistics")
    assert plain.how == "as it is: not asked to fold"
    for result in (copied, plain):
        assert result.images.dtype == torch.float64
        assert distance(attack.norm, result.images - images).max() <= attack.radius + 1e-12
    verdicts = [logits_of(model, result.images).argmax(1) != labels for result in (copied, plain)]
    assert torch.equal(*verdicts)


@every_attack
def test_bf16_candidates_stay_in_the_ball(attack):
    model = conv_net()
    images, _ = batch()
    adversarial = changed(attack, precision="bf16")(model, images, answered(model, images), generator())
    assert adversarial.dtype == torch.float32
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    assert 0 <= adversarial.min() <= adversarial.max() <= 1


# The generator and the caller


@every_attack
def test_deterministic_by_generator_also_under_no_grad_and_inference_mode(attack):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    first = attack(model, images, labels)  # without a generator, that of seed 0
    if is_random(attack):
        assert not torch.equal(first, attack(model, images, labels, generator(6)))
    with torch.no_grad():
        assert torch.equal(first, attack(model, images, labels, generator(0)))
    with torch.inference_mode():
        inside = attack(model, images.clone(), labels.clone(), generator(0))
    assert torch.equal(first, inside)


@every_attack
def test_channels_last_images_come_back_so_and_the_draw_is_the_same(attack):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    first = attack(model, images, labels, generator())
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
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    seen = [0]

    def count(module, inputs):
        seen[0] += len(inputs[0])

    model.register_forward_pre_hook(count)  # a model with hooks is attacked as it is: every pass is seen
    result = attack.run(model, images, labels, generator())
    if isinstance(attack, Transfer):  # those of the surrogates count too
        assert result.forwards > seen[0]
    else:
        assert result.forwards == seen[0]


# Models of every kind


@every_attack
def test_one_image_alone(attack):
    model = conv_net()
    images, _ = batch(count=2)
    labels = answered(model, images)
    if attack.bn == "batch":
        pytest.skip("one image has no batch")
    for row in range(2):
        alone = attack(model, images[row : row + 1], labels[row : row + 1], generator())
        assert alone.shape == (1, *SHAPE)
        assert distance(attack.norm, alone - images[row : row + 1]).max() <= attack.radius + 1e-6


@every_attack
def test_an_image_that_is_misclassified_already_stays_so(attack):
    model = conv_net()
    images, _ = batch()
    labels = (logits_of(model, images).argmax(1) + 1) % CLASSES
    adversarial = attack(model, images, labels, generator())
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    if getattr(attack, "keep", "best") == "best" and attack.bn == "eval":
        assert (logits_of(model, adversarial).argmax(1) != labels).all()
    if isinstance(attack, CarliniWagner | DeepFool):
        assert torch.equal(adversarial, images)


class Noisy(nn.Module):
    """A network whose every pass draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(x + 0.05 * torch.randn_like(x))


@every_attack
def test_random_predictors_are_attacked_by_the_generator_alone(attack):
    model = Predictor(Noisy(), samples=2)
    images, _ = batch()
    labels = answered(model.module.inner, images)
    before, noise = state(model), torch.get_rng_state()
    first = attack.run(model, images, labels, generator(3))
    torch.rand(7)  # the global generator's place does not matter
    torch.set_rng_state(noise)
    second = attack.run(model, images, labels, generator(3))
    assert torch.equal(first.images, second.images)
    assert first.how in ("as it is: it is random", "as it is: with batch statistics")
    assert torch.equal(noise, torch.get_rng_state())
    assert distance(attack.norm, first.images - images).max() <= attack.radius + 1e-6
    assert_same_state(before, state(model))


@best_of_all
def test_abstaining_predictors_must_accept_the_wrong_answer(attack):
    # One class more: "rejected". What counts as misclassified is wrong and not rejected.
    model = Predictor(conv_net(CLASSES + 1), abstains=True)
    images, _ = batch(count=16)
    labels = logits_of(model, images)[:, :-1].argmax(1)

    def wins(x):
        answers = logits_of(model, x).argmax(1)
        return (answers != labels) & (answers != CLASSES)

    adversarial = attack(model, images, labels, generator())
    assert not wins(images).any()
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    if isinstance(attack, CarliniWagner | DeepFool):
        # These move an image only when they win.
        moved = (adversarial != images).flatten(1).any(1)
        assert torch.equal(moved, wins(adversarial))


class Broken(nn.Module):
    """Finite logits near the image alone, NaN gradients and logits where the first pixel is bright."""

    def __init__(self):
        super().__init__()
        self.inner, _ = linear(CLASSES)

    def forward(self, x):
        bad = torch.where(x[:, 0, 0, :1] > 0.5, torch.nan, 0.0)
        return self.inner(x) + bad + (x.flatten(1)[:, :CLASSES] - x.flatten(1)[:, :CLASSES].detach()) * bad


@every_attack
def test_nan_never_reaches_the_images(attack):
    images, _ = batch()
    model = Broken()
    labels = model.inner(images).argmax(1)
    adversarial = attack(model, images, labels, generator())
    assert adversarial.isfinite().all()
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6


class Flat(nn.Module):
    """Logits that do not depend on the image, with or without a gradient of zero."""

    def __init__(self, detached):
        super().__init__()
        self.detached = detached

    def forward(self, x):
        logits = 0 * x.flatten(1)[:, :CLASSES] + torch.arange(CLASSES, 0, -1)
        return logits.detach() if self.detached else logits


@every_attack
@pytest.mark.parametrize("detached", [False, True])
def test_a_model_without_gradients(attack, detached):
    images, labels = batch()
    labels = torch.zeros_like(labels)  # the answer of that model, whatever the image
    adversarial = attack(Flat(detached), images, labels, generator())
    assert adversarial.isfinite().all()
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    if isinstance(attack, CarliniWagner | DeepFool):
        assert torch.equal(adversarial, images)


# What is refused


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.passes = conv_net(), 0

    def forward(self, x):
        self.passes += 1
        return self.inner(x)


BAD_INPUTS = [
    (lambda x, y: ((x * 255).byte(), y), "uint8"),
    (lambda x, y: (x.half(), y), "float16"),
    (lambda x, y: (x[0], y), "shape"),
    (lambda x, y: (x[:0], y[:0]), "shape"),
    (lambda x, y: (x * 2, y), "0..1"),
    (lambda x, y: (x - 0.5, y), "0..1"),
    (lambda x, y: (x.masked_fill(x > 0.9, torch.nan), y), "NaN"),
    (lambda x, y: (x, y.int()), "int32"),
    (lambda x, y: (x, y[:-1]), "labels"),
    (lambda x, y: (x, F.one_hot(y, 5)), "labels"),
    (lambda x, y: (x, y - 10), "label -"),
]


@every_attack
def test_bad_inputs_are_refused_before_any_pass(attack):
    model = Counting()
    before = state(model)
    for change, message in BAD_INPUTS:
        with pytest.raises(AttackError, match=message):
            attack(model, *change(*batch()))
    assert model.passes == 0
    assert_same_state(before, state(model))


@every_attack
def test_a_label_beyond_the_classes_is_refused(attack):
    images, labels = batch()
    with pytest.raises(AttackError, match="classes"):
        attack(conv_net(), images, labels + 10)


@every_attack
def test_too_few_classes_are_refused(attack):
    if attack.least_classes == 2:
        pytest.skip("defined for any two classes")
    classes = attack.least_classes - 1
    images, labels = batch(classes=classes)
    with pytest.raises(
        AttackError, match=f"at least {attack.least_classes} classes, the model has {classes}"
    ):
        attack(conv_net(classes), images, labels)


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


def test_the_suite_runs_where_its_surrogate_is(surrogate):
    assert os.path.samefile(SURROGATE, surrogate)

"""The contract of every attack on models of every kind, and the inputs that each refuses."""

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
from suite import best_of_all, every_attack
from torch import nn

from robust_nas.attacks import (
    MinimalAttack,
    Predictor,
)
from robust_nas.errors import AttackError

pytestmark = pytest.mark.usefixtures("surrogate", "few_iterations")

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
    if isinstance(attack, MinimalAttack):
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
    assert first.model_form.startswith("as it is: ")
    assert torch.equal(noise, torch.get_rng_state())
    assert distance(attack.norm, first.images - images).max() <= attack.radius + 1e-6
    assert_same_state(before, state(model))


@best_of_all
def test_abstaining_predictors_must_accept_the_wrong_answer(attack):
    # One class more: "rejected". What counts as misclassified is wrong and not rejected.
    model = Predictor(conv_net(CLASSES + 1), abstains=True)
    images, _ = batch(count=16)
    labels = logits_of(model, images)[:, :-1].argmax(1)

    if attack.external:
        with pytest.raises(AttackError, match="rejection"):
            attack(model, images, labels)
        return

    def wins(x):
        answers = logits_of(model, x).argmax(1)
        return (answers != labels) & (answers != CLASSES)

    adversarial = attack(model, images, labels, generator())
    assert not wins(images).any()
    assert distance(attack.norm, adversarial - images).max() <= attack.radius + 1e-6
    if isinstance(attack, MinimalAttack):
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
    if isinstance(attack, MinimalAttack):
        assert torch.equal(adversarial, images)


class Centred(nn.Module):
    """A network on images less a half, taken off the images themselves or off a copy."""

    def __init__(self, in_place):
        super().__init__()
        self.inner, self.in_place = conv_net(), in_place

    def forward(self, x):
        return self.inner(x.sub_(0.5) if self.in_place else x - 0.5)


@every_attack
def test_a_model_that_changes_its_input_in_place(attack):
    images, _ = batch()
    labels, before = answered(Centred(False), images), images.clone()
    plain, in_place = (attack(Centred(way), images, labels, generator()) for way in (False, True))
    assert torch.equal(plain, in_place)
    assert torch.equal(images, before)


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

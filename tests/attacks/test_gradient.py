"""The gradient family: exact answers on linear models, identities, and the contract of every attack."""

import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD, attack_mode
from robust_nas.attacks.gradient import KL_START
from robust_nas.errors import AttackError, ConfigError

SHAPE = (3, 4, 4)
EPS = 0.1
ATTACKS = {
    "fgsm": FGSM(eps=EPS),
    "fgsm-l2": FGSM(eps=0.5, norm="l2"),
    "fgsm-rs": FGSMRS(eps=EPS),
    "fgsm-rs-best": FGSMRS(eps=EPS, keep="best"),
    "n-fgsm": NFGSM(eps=EPS, noise=2.0),
    "pgd": PGD(eps=EPS, steps=4),
    "pgd-l2": PGD(eps=0.5, norm="l2", steps=4),
    "pgd-kl": PGD(eps=EPS, loss="kl", steps=3),
    "pgd-last": PGD(eps=EPS, steps=3, keep="last"),
    "pgd-restarts": PGD(eps=EPS, steps=2, restarts=3),
    "pgd-restarts-last": PGD(eps=EPS, steps=2, restarts=3, keep="last"),
    "pgd-batch": PGD(eps=EPS, steps=2, bn="batch"),
    "pgd-kl-batch": PGD(eps=EPS, loss="kl", steps=2, bn="batch", keep="last"),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=6, low=0.0, high=1.0, seed=1, classes=5):
    images = torch.rand(count, *SHAPE, generator=generator(seed)) * (high - low) + low
    return images, torch.randint(classes, (count,), generator=generator(seed + 1))


def linear(classes, seed=3):
    """Logits W x + b, with W `[K, D]` returned beside the model."""
    layer = nn.Linear(math.prod(SHAPE), classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(seed)))
        layer.bias.copy_(torch.randn(classes, generator=generator(seed + 1)))
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


def conv_net(classes=5, seed=0):
    """A small network with BatchNorm and dropout, in a mix of modes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, classes),
        )  # fmt: skip
        for norm in (model[1], model[5]):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    model.train()
    model[5].eval()
    model[0].bias.requires_grad_(requires_grad=False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    return model


def state(model):
    """Everything that an attack must leave as it was."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        {key: value.clone() for key, value in model.state_dict().items()},
        [getattr(module, "track_running_stats", None) for module in model.modules()],
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert before[1] == after[1]
    for first, second in zip(before[2], after[2], strict=True):
        assert (first is None and second is None) or torch.equal(first, second)
    assert all(torch.equal(before[3][key], after[3][key]) for key in before[3])
    assert before[4] == after[4]


def radius(attack):
    return attack.noise * attack.eps + attack.step if isinstance(attack, NFGSM) else attack.eps


def size(attack, delta):
    return delta.flatten(1).double().norm(p=math.inf if attack.norm == "linf" else 2, dim=1).max().item()


def key(model, images, labels):
    """What `keep="best"` maximises, per example: misclassified first, then the loss."""
    with torch.no_grad(), attack_mode(model):
        logits = model(images)
    wrong = (logits.argmax(1) != labels).tolist()
    return list(zip(wrong, F.cross_entropy(logits, labels, reduction="none").tolist(), strict=True))


def never_below(first, second):
    """Whether each key of `first` is at least that of `second`, up to rounding of the loss."""
    return all(
        a[0] > b[0] or (a[0] == b[0] and a[1] >= b[1] - 1e-6) for a, b in zip(first, second, strict=True)
    )


# Closed forms


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "make", [lambda **k: FGSM(**k), lambda **k: PGD(steps=30, step_size=0.1, **k)], ids=["fgsm", "pgd"]
)
def test_binary_margin_falls_by_eps_times_the_dual_norm(norm, make):
    model, weight = linear(2)
    images, labels = batch(classes=2, low=0.3, high=0.7)
    sign = 1 - 2 * labels.float()
    w = weight[0] - weight[1]

    def margin(x):
        logits = model(x).detach()
        return sign * (logits[:, 0] - logits[:, 1])

    adversarial = make(eps=0.1, norm=norm)(model, images, labels, generator())
    dual = w.abs().sum() if norm == "linf" else w.norm()
    torch.testing.assert_close(margin(adversarial), margin(images) - 0.1 * dual, atol=1e-5, rtol=0)
    loss = F.cross_entropy(model(adversarial), labels, reduction="none")
    torch.testing.assert_close(loss, F.softplus(-margin(images) + 0.1 * dual), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attack", [FGSM(eps=0.3), PGD(eps=0.3, steps=20)], ids=["fgsm", "pgd"])
def test_binary_linf_worst_case_with_the_box_active(attack):
    model, weight = linear(2)
    images, labels = batch(classes=2)
    w = (weight[0] - weight[1]).view(1, *SHAPE) * (1 - 2 * labels.float()).view(-1, 1, 1, 1)
    exact = (images - attack.eps * w.sign()).clamp(0, 1)
    torch.testing.assert_close(attack(model, images, labels, generator()), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("norm", "eps", "p"), [("linf", 0.02, 1), ("l2", 0.1, 2)])
def test_many_classes_break_where_the_certificate_ends(norm, eps, p):
    # min_j (z_y - z_j - eps ||w_y - w_j||) > 0 certifies an example exactly. No attack breaks a certified
    # one; cross-entropy, which mixes the rivals, breaks the others up to a small band.
    model, weight = linear(5)
    images, labels = batch(count=64, low=0.2, high=0.8)
    with torch.no_grad():
        logits = model(images)
        labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    drops = eps * (weight[labels][:, None] - weight[None]).norm(p=p, dim=2)
    slack = (gaps - drops).scatter(1, labels[:, None], math.inf).min(1).values
    adversarial = PGD(eps=eps, norm=norm, steps=40, restarts=2)(model, images, labels, generator())
    broken = model(adversarial).argmax(1) != labels
    assert 0 < broken.sum() < 64
    assert not broken[slack > 1e-5].any()
    assert broken[slack < -0.15].all()


def test_binary_kl_reaches_an_end_of_the_ball():
    # KL(p || q) of two classes is convex in the logit difference, so its maximum is at one of the two ends.
    model, weight = linear(2)
    images, labels = batch(classes=2, low=0.3, high=0.7)
    w = (weight[0] - weight[1]).view(1, *SHAPE)
    adversarial = PGD(eps=0.05, loss="kl", steps=20, keep="last")(model, images, labels, generator())
    ends = torch.stack([(adversarial - images - s * 0.05 * w.sign()).abs().amax((1, 2, 3)) for s in (1, -1)])
    assert ends.min(0).values.max() < 1e-6


def test_kl_gradient_is_zero_at_the_image_hence_the_start():
    model, _ = linear(4)
    images, _ = batch(classes=4)
    images.requires_grad_()
    p = model(images).detach().log_softmax(1)
    loss = F.kl_div(model(images).log_softmax(1), p, reduction="sum", log_target=True)
    (gradient,) = torch.autograd.grad(loss, images)
    assert gradient.abs().max() < 1e-5
    with pytest.raises(ConfigError, match="random_start"):
        PGD(eps=0.1, loss="kl", random_start=False)


def test_kl_starts_at_small_noise():
    # Zero weights: no gradient, so the last iterate is the start.
    model, _ = linear(4)
    nn.init.zeros_(model[1].weight)
    images, labels = batch(count=64, classes=4, low=0.2, high=0.8)
    noise = PGD(eps=0.1, loss="kl", keep="last")(model, images, labels, generator()) - images
    assert noise.std().item() == pytest.approx(KL_START, rel=0.05)


@every_attack
def test_no_budget_returns_the_image(attack):
    images, labels = batch()
    unmoved = attack.model_copy(update={"eps": 0.0})(conv_net(), images, labels, generator())
    assert torch.equal(unmoved, images)


def test_uniform_start_in_the_l2_ball():
    # ||delta|| / eps has the distribution of U^(1/d): its d-th power is uniform.
    model, _ = linear(2)
    nn.init.zeros_(model[1].weight)
    images, labels = batch(count=400, classes=2, low=0.45, high=0.55)
    start = PGD(eps=0.3, norm="l2", keep="last")(model, images, labels, generator()) - images
    share = (start.flatten(1).norm(dim=1) / 0.3).pow(math.prod(SHAPE)).sort().values
    assert (share - torch.linspace(0, 1, 400)).abs().max() < 0.09  # Kolmogorov-Smirnov at about 0.3 %


def test_n_fgsm_leaves_the_ball_and_fgsm_rs_does_not():
    images, labels = batch(low=0.4, high=0.6)
    model = conv_net()
    noisy = NFGSM(eps=0.02, noise=2.0)(model, images, labels, generator()) - images
    assert 0.02 < noisy.abs().max() <= 3 * 0.02 + 1e-6
    assert (FGSMRS(eps=0.02)(model, images, labels, generator()) - images).abs().max() <= 0.02 + 1e-6


def test_fgsm_is_pgd_of_one_full_step():
    images, labels = batch()
    one = PGD(eps=EPS, steps=1, step_size=EPS, random_start=False)
    assert torch.equal(one(conv_net(), images, labels), FGSM(eps=EPS)(conv_net(), images, labels))


# Best iterate


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["linf", "l2"]),
    st.booleans(),
)
def test_more_steps_and_restarts_never_weaken(seed, steps, more, norm, random_start):
    model = conv_net(seed=seed % 7)
    images, labels = batch(seed=seed)
    common = {
        "eps": 0.1 if norm == "linf" else 0.5,
        "norm": norm,
        "step_size": 0.05,
        "random_start": random_start,
    }
    short = PGD(steps=steps, **common)(model, images, labels, generator(seed))
    longer = PGD(steps=steps + more, **common)(model, images, labels, generator(seed))
    assert never_below(key(model, short, labels), key(model, images, labels))
    assert never_below(key(model, longer, labels), key(model, short, labels))
    if random_start:
        again = PGD(steps=steps, restarts=1 + more, **common)(model, images, labels, generator(seed))
        assert never_below(key(model, again, labels), key(model, short, labels))


def test_a_misclassified_image_stays_misclassified():
    # Steps that are far too long land anywhere; the clean image remains a candidate.
    images, labels = batch(count=40)
    model = conv_net()
    wrong = [entry[0] for entry in key(model, images, labels)]
    attacked = PGD(eps=0.5, steps=2, step_size=0.5)(model, images, labels, generator())
    assert all(after[0] for before, after in zip(wrong, key(model, attacked, labels), strict=True) if before)


# The contract


@every_attack
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_stays_in_ball_and_box_and_leaves_everything_as_it_was(attack, layout):
    model = conv_net()
    images, labels = batch()
    images = images.to(memory_format=layout)
    kept, before = images.clone(), state(model)
    noise = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    adversarial = attack(model, images, labels, generator())
    assert size(attack, adversarial - images) <= radius(attack) + 1e-6
    assert size(attack, adversarial - images) > 0
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad
    assert adversarial.dtype == images.dtype
    assert adversarial.is_contiguous(memory_format=layout)
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert_same_state(before, state(model))
    assert torch.equal(noise[0], torch.get_rng_state())
    assert noise[1] == random.getstate()
    assert (noise[2] == np.random.get_state()[1]).all()


@every_attack
def test_deterministic_by_generator_also_under_no_grad_and_inference_mode(attack):
    model = conv_net()
    images, labels = batch()
    first = attack(model, images, labels, generator(5))
    assert torch.equal(first, attack(model, images, labels, generator(5)))
    assert torch.equal(attack(model, images, labels), attack(model, images, labels, generator(0)))
    if not isinstance(attack, FGSM):
        assert not torch.equal(first, attack(model, images, labels, generator(6)))
    with torch.no_grad():
        assert torch.equal(first, attack(model, images, labels, generator(5)))
    with torch.inference_mode():
        inside = attack(model, images.clone(), labels.clone(), generator(5))
    assert torch.equal(first, inside)


@every_attack
def test_the_draw_does_not_depend_on_the_memory_format(attack):
    model = conv_net()
    images, labels = batch()
    first = attack(model, images, labels, generator())
    second = attack(model, images.to(memory_format=torch.channels_last), labels, generator())
    # Convolutions may round differently by layout, which flips the sign of a gradient next to zero.
    assert ((first - second).abs() < 1e-5).float().mean() > 0.98


def test_bf16_autocast_keeps_float32_images():
    images, labels = batch()
    with torch.autocast("cpu", torch.bfloat16):
        adversarial = PGD(eps=EPS)(conv_net(), images, labels, generator())
    assert adversarial.dtype == torch.float32
    assert (adversarial - images).abs().max() <= EPS + 1e-6


def test_parameters_are_frozen_meanwhile_to_spare_their_gradients():
    model = conv_net()
    seen = []
    model.register_forward_pre_hook(
        lambda module, _: seen.extend(p.requires_grad for p in module.parameters())
    )
    PGD(eps=EPS, steps=2)(model, *batch())
    assert seen
    assert not any(seen)


def test_batch_statistics_are_used_and_not_recorded():
    images, labels = batch()
    model = conv_net()
    by_batch = PGD(eps=EPS, bn="batch")(model, images, labels, generator())
    assert not torch.equal(by_batch, PGD(eps=EPS, bn="eval")(model, images, labels, generator()))
    changed = copy.deepcopy(model)
    for norm in (changed[1], changed[5]):
        norm.running_mean.add_(1.0)
    assert torch.equal(by_batch, PGD(eps=EPS, bn="batch")(changed, images, labels, generator()))


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


class Broken(nn.Module):
    """Finite logits near the image alone, NaN gradients and logits where the first pixel is bright."""

    def __init__(self):
        super().__init__()
        self.inner, _ = linear(3)

    def forward(self, x):
        bad = torch.where(x[:, 0, 0, :1] > 0.5, torch.nan, 0.0)
        return self.inner(x) + bad + (x.flatten(1)[:, :3] - x.flatten(1)[:, :3].detach()) * bad


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nan_never_reaches_the_images(keep, norm):
    images, labels = batch(classes=3)
    adversarial = PGD(eps=0.3, norm=norm, keep=keep)(Broken(), images, labels, generator())
    assert adversarial.isfinite().all()


# Inputs that are refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
        (lambda x, y: (x, y + 10), "classes"),
    ],
)
def test_bad_inputs(change, message):
    with pytest.raises(AttackError, match=message):
        PGD(eps=EPS)(conv_net(), *change(*batch()))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (6, 48)), nn.Linear(48, 2), nn.Flatten(0)), "returned"),
        (nn.ModuleList, "tuple"),
    ],
)
def test_models_that_give_no_logits(model, message):
    class Pair(nn.Module):
        def forward(self, x):
            return x.flatten(1), None

    with pytest.raises(AttackError, match=message):
        FGSM(eps=EPS)(Pair() if model is nn.ModuleList else model, *batch(classes=2))


@pytest.mark.parametrize("kwargs", [{"eps": -0.1}, {"steps": 0}, {"restarts": 2, "random_start": False}])
def test_bad_options(kwargs):
    with pytest.raises(ConfigError):
        PGD(**{"eps": 0.1, **kwargs})


# An independent implementation


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "LinfPGD", 0.1), ("l2", "L2PGD", 0.5)])
def test_equals_foolbox(norm, name, eps):
    foolbox = pytest.importorskip("foolbox")
    model = conv_net().eval()
    images, labels = batch(count=8)
    theirs = getattr(foolbox.attacks, name)(abs_stepsize=eps / 4, steps=10, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels), epsilon=eps)
    ours = PGD(eps=eps, norm=norm, step_size=eps / 4, steps=10, random_start=False, keep="last")
    torch.testing.assert_close(ours(model, images, labels), expected, atol=1e-6, rtol=0)

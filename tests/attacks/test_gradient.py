"""The gradient family: exact answers on linear models, identities, and two independent implementations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from attacked import SHAPE, answered, batch, certificate, conv_net, generator, linear, logits_of, two_of_four
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.attacks import APGD, FGSM, FGSMRS, NFGSM, PGD
from robust_nas.attacks.gradient import KL_START
from robust_nas.attacks.losses import bound, likeliest_wrong
from robust_nas.errors import AttackError, ConfigError

EPS = 0.1


def key(model, images, labels, clean, loss):
    """What `keep="best"` maximises, per example: misclassified first, then the loss of that name."""
    logits = logits_of(model, images)
    (targets,) = likeliest_wrong(clean, labels, 1)
    values = bound(loss, labels, clean=clean, targets=targets)(logits)
    return list(zip((logits.argmax(1) != labels).tolist(), values.tolist(), strict=True))


def never_below(first, second):
    """Whether each key of `first` is at least that of `second`, up to rounding of the loss."""
    return all(
        a[0] > b[0] or (a[0] == b[0] and a[1] >= b[1] - 1e-5) for a, b in zip(first, second, strict=True)
    )


# Closed forms


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "make", [lambda **k: FGSM(**k), lambda **k: PGD(steps=30, step_size=0.1, **k)], ids=["fgsm", "pgd"]
)
def test_binary_margin_falls_by_eps_times_the_dual_norm(norm, make):
    model, weight = linear(2, scale=0.2)  # larger ones saturate the cross-entropy
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
    model, weight = linear(2, scale=0.2)  # larger ones saturate the cross-entropy
    images, labels = batch(classes=2)
    w = (weight[0] - weight[1]).view(1, *SHAPE) * (1 - 2 * labels.float()).view(-1, 1, 1, 1)
    exact = (images - attack.eps * w.sign()).clamp(0, 1)
    torch.testing.assert_close(attack(model, images, labels, generator()), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "kl", "ce-targeted", "dlr-targeted"])
@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_pgd_of_every_loss_reaches_the_worst_point(loss, norm, momentum):
    # Every loss is monotone in a x (the KL away from the image's own), so the worst point is x -+ eps d(a).
    model, a = two_of_four()
    images, _ = batch(count=16, low=0.3, high=0.7)
    labels = model(images).argmax(1)
    attack = PGD(eps=0.1, norm=norm, loss=loss, steps=40, step_size=0.05, momentum=momentum, keep="last")
    adversarial = attack(model, images, labels, generator())
    unit = (a.sign() if norm == "linf" else a / a.norm()).view(1, *SHAPE)
    towards = (2 * labels - 1).float().view(-1, 1, 1, 1) * unit
    moved = (adversarial - images) / 0.1
    if loss == "kl":  # its maximum is at one of the two ends
        towards = towards * (moved * towards).sum((1, 2, 3), keepdim=True).sign()
    torch.testing.assert_close(moved, towards.expand_as(moved), atol=2e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "dlr-targeted"])
def test_apgd_of_every_loss_reaches_the_worst_value(loss, norm):
    model, a = two_of_four()
    images, _ = batch(count=16, low=0.3, high=0.7)
    labels = model(images).argmax(1)
    attack = APGD(eps=0.1, norm=norm, loss=loss, steps=60, targets=1 if "targeted" in loss else None)
    adversarial = attack(model, images, labels, generator())
    dual = 0.1 * (a.abs().sum() if norm == "linf" else a.norm())
    fallen = (((adversarial - images).flatten(1) @ a) * (1 - 2 * labels)).neg()
    assert (fallen <= dual + 1e-5).all()
    assert (fallen >= 0.999 * dual).all()


@pytest.mark.parametrize(("norm", "eps", "p"), [("linf", 0.012, 1), ("l2", 0.2, 2)])
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: PGD(steps=40, restarts=2, **k),
        lambda **k: PGD(steps=40, loss="ce-targeted", targets=4, **k),
        lambda **k: APGD(steps=40, loss="dlr-targeted", targets=4, **k),
    ],
    ids=["pgd", "pgd-targeted", "apgd-t"],
)
def test_many_classes_break_where_the_certificate_ends(make, norm, eps, p):
    # No attack breaks an example whose certificate is larger. Targeted losses, which follow one rival at a time,
    # break all the others; cross-entropy, which mixes the rivals, breaks them up to a small band.
    model, weight = linear(5)
    images, _ = batch(count=64, low=0.2, high=0.8)
    labels = model(images).argmax(1)
    exact = certificate(model, weight, images, labels, p)
    attack = make(eps=eps, norm=norm)
    broken = model(attack(model, images, labels, generator())).argmax(1) != labels
    assert 8 < broken.sum() < 56
    assert not broken[exact > eps * (1 + 1e-4)].any()
    band = 0.995 if attack.loss.endswith("targeted") else 0.85
    assert broken[exact < band * eps].all()


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


@pytest.mark.parametrize("eps", [0.02, 0.4])
def test_n_fgsm_without_noise_is_fgsm(eps):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    found = NFGSM(eps=eps, noise=0.0)(model, images, labels, generator())
    assert torch.equal(found, FGSM(eps=eps, keep="last")(model, images, labels, generator()))


def test_fgsm_is_pgd_of_one_full_step():
    images, labels = batch()
    one = PGD(eps=EPS, steps=1, step_size=EPS, random_start=False)
    assert torch.equal(one(conv_net(), images, labels), FGSM(eps=EPS)(conv_net(), images, labels))


# Best iterate


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 5),
    more=st.integers(1, 3),
    norm=st.sampled_from(["linf", "l2"]),
    loss=st.sampled_from(["ce", "margin", "dlr", "kl", "ce-targeted", "dlr-targeted"]),
    momentum=st.sampled_from([0.0, 0.9]),
    random_start=st.booleans(),
)
def test_more_steps_and_restarts_never_weaken(seed, steps, more, norm, loss, momentum, random_start):
    # With the same draws and a step of fixed size, more of either extends the sequence of candidates.
    model = conv_net(seed=seed % 7)
    images, labels = batch(seed=seed)
    clean = logits_of(model, images)
    common = {
        "eps": 0.1 if norm == "linf" else 0.5,
        "norm": norm,
        "loss": loss,
        "momentum": momentum,
        "step_size": 0.05,
        "random_start": random_start or loss == "kl",
    }

    def keys(**options):
        adversarial = PGD(**common, **options)(model, images, labels, generator(seed))
        return key(model, adversarial, labels, clean, loss)

    short = keys(steps=steps)
    assert never_below(short, key(model, images, labels, clean, loss))
    assert never_below(keys(steps=steps + more), short)
    if common["random_start"]:
        assert never_below(keys(steps=steps, restarts=1 + more), short)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), loss=st.sampled_from(["ce-targeted", "dlr-targeted"]))
def test_more_targets_never_save_an_example(seed, loss):
    model = conv_net(seed=seed % 7)
    images, labels = batch(seed=seed)
    broken = [
        logits_of(
            model,
            PGD(eps=0.1, steps=3, loss=loss, targets=targets)(model, images, labels, generator(seed)),
        ).argmax(1)
        != labels
        for targets in (1, 2, 4)
    ]
    assert broken[1][broken[0]].all()
    assert broken[2][broken[1]].all()


def test_a_misclassified_image_stays_misclassified():
    # Steps that are far too long land anywhere; the clean image remains a candidate.
    images, labels = batch(count=40)
    model = conv_net()
    wrong = logits_of(model, images).argmax(1) != labels
    attacked = PGD(eps=0.5, steps=2, step_size=0.5)(model, images, labels, generator())
    assert 0 < wrong.sum() < 40
    assert (logits_of(model, attacked).argmax(1) != labels)[wrong].all()


# The model meanwhile


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


# What is refused


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Flatten(0)), "returned"),
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


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=EPS, steps=20, loss="dlr-targeted", targets=5, restarts=2),
        APGD(eps=EPS, steps=20, loss="dlr-targeted", targets=5, restarts=2),
    ],
    ids=["pgd", "apgd"],
)
def test_a_shortened_attack_has_no_targets_and_is_defined_for_two_classes(attack):
    short = attack.shortened(10)
    assert (short.loss, short.targets, short.least_classes) == ("ce", None, 2)
    assert short.passes == (12, 10)
    assert type(short)(**short.model_dump()) == short  # the constructor takes it
    images, labels = batch(classes=2)
    result = short.run(linear(2)[0], images, labels, generator())
    assert result.forwards <= short.passes.forward * len(images)


# Independent implementations


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "LinfPGD", 0.1), ("l2", "L2PGD", 0.5)])
def test_equals_foolbox(norm, name, eps, digits_net):
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = digits_net
    theirs = getattr(foolbox.attacks, name)(abs_stepsize=eps / 4, steps=10, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels), epsilon=eps)
    assert_same_images(PGD(eps=eps, norm=norm, step_size=eps / 4, steps=10), expected, digits_net)


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "PGD", 0.1), ("l2", "PGDL2", 0.5)])
def test_equals_torchattacks(norm, name, eps, digits_net):
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = digits_net
    theirs = getattr(torchattacks, name)(model, eps=eps, alpha=eps / 4, steps=10, random_start=False)
    expected = theirs(images, labels)
    assert_same_images(PGD(eps=eps, norm=norm, step_size=eps / 4, steps=10), expected, digits_net)


def assert_same_images(attack, expected, digits_net):
    model, images, labels = digits_net
    attack = attack.model_copy(update={"keep": "last", "random_start": False, "fold": False})
    ours = attack(model, images, labels)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    verdicts = [model(x).argmax(1) == labels for x in (ours, expected)]
    assert torch.equal(*verdicts)
    assert 0.3 < verdicts[0].float().mean() < 0.97  # it says something

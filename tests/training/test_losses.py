"""Training losses: one contract for all of them, and their closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_cases import (
    EPS,
    KL,
    LOSSES,
    assert_resumes,
    generator,
    linear_network,
    options,
    residual_for,
    small_batch,
    small_for,
    small_network,
    with_eps,
    with_prior,
)

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD
from robust_nas.config import check
from robust_nas.errors import ConfigError
from robust_nas.training import (
    IAT,
    JSIGR,
    MART,
    PGDAT,
    TRADES,
    AdvBNN,
    GradAlign,
    Ladder,
    Natural,
    SecondOrderAT,
    Training,
    cross_entropy,
)
from robust_nas.training import LOSSES as REGISTRY
from robust_nas.training.losses.iat import symmetric_beta
from robust_nas.training.losses.j_sigr import (
    orthonormal_vectors,
    perturbation_saliency,
    salient_pixels,
)

TRAINED = {
    Natural: 1,
    PGDAT: 1,
    TRADES: 2,
    MART: 2,
    IAT: 2,
    JSIGR: 1,
    SecondOrderAT: 1,
    GradAlign: 1,
    Ladder: 2,
    AdvBNN: 1,
}  # passes that move batch norm, of one step

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def test_every_loss_of_the_registry_is_in_the_suite():
    assert {type(loss) for loss in LOSSES.values()} == {REGISTRY.get(name) for name in REGISTRY.built_in}


@every_loss
def test_a_loss_is_a_finite_scalar_that_every_weight_has_a_part_in(loss):
    model, (images, labels) = small_for(loss), small_batch()
    value = loss(model, images, labels, generator())
    assert value.loss.shape == ()
    assert value.loss.isfinite()
    assert value.loss > 0
    assert value.logits.shape == (8, 5)
    value.loss.backward()
    # the convolution's bias is taken away again by the batch norm behind it
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for name, p in model.named_parameters() if name != "0.bias")
    assert images.grad is None


@every_loss
def test_its_gradient_is_the_derivative_along_a_direction(loss):
    """At eps = 0, where no attack of its own moves with the weights."""
    loss = with_eps(loss, 0.0)
    images, labels = (t.double() if t.is_floating_point() else t for t in small_batch())
    model = small_for(loss).double()
    loss(model, images, labels, generator()).loss.backward()
    weights = list(model.parameters())
    draws = generator(5)
    directions = [torch.randn(weight.shape, dtype=torch.float64, generator=draws) for weight in weights]
    values = []
    for h in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(h * direction)
        values.append(loss(model, images, labels, generator()).loss.detach())
    slope = (values[0] - values[1]) / 2e-6
    expected = sum((weight.grad * way).sum() for weight, way in zip(weights, directions, strict=True))
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-8)


@every_loss
def test_a_loss_is_decided_by_its_generator_and_leaves_the_global_one_alone(loss):
    images, labels = small_batch()
    before = torch.get_rng_state()
    found = [loss(small_for(loss), images, labels, generator(seed)).loss.item() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert (found[0] == found[2]) == (loss.inner_attack is None and not loss.fits_parts)


@every_loss
def test_a_loss_leaves_a_training_model_that_moved_its_batch_norm_once_per_image_seen(loss):
    model, (images, labels) = small_for(loss), small_batch()
    copies = images.clone(), labels.clone()
    loss(model, images, labels, generator())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    # the attack's passes leave no trace; TRADES trains on clean and on attacked images
    tracked = {int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert tracked == {TRAINED[type(loss)]}
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])


def boosted(loss, model, images, labels):
    """MART's first term on clean images, one by one."""
    p = model(images).detach().softmax(1).tolist()
    terms = [
        -math.log(row[y]) - math.log(1.0001 - max(q for k, q in enumerate(row) if k != y))
        for row, y in zip(p, labels.tolist(), strict=True)
    ]
    return sum(terms) / len(terms)


def mixup(loss, model, images, labels):
    """Mixup of clean images, twice, with IAT's draws."""
    draws, terms = generator(), []
    loss.attack(model, images, labels, draws)
    for _ in range(2):
        r = float(symmetric_beta(1.0, images, draws))
        order = torch.randperm(len(images), generator=draws)
        torch.randint(1, (), generator=draws)
        one_hot = torch.eye(5)[labels]
        log_p = model(r * images + (1 - r) * images[order]).detach().log_softmax(1)
        terms.append(-float(((r * one_hot + (1 - r) * one_hot[order]) * log_p).sum(1).mean()))
    return sum(terms) / 2


def penalised(loss, model, images, labels):
    """J-SIGR, from its formula; the estimate of the Jacobian norm is left to its own vectors."""
    x = images.clone().requires_grad_()
    logits = model(x)
    draws = generator()
    if loss.attack is not None:
        loss.attack(small_network(), images, labels, draws)
    slopes = [
        torch.autograd.grad((logits * v).sum(), x, retain_graph=True)[0]
        for v in orthonormal_vectors(logits.detach(), loss.projections, draws)
    ]
    jacobian = sum(float(slope.square().sum()) for slope in slopes) * 5 / loss.projections / 16
    own = logits.log_softmax(1)[torch.arange(2), labels[:2]].sum()
    gradient = torch.autograd.grad(own, x)[0][:2]
    free = salient_pixels(perturbation_saliency(small_network(), images[:2], 4), 0.2, (5, 5))
    selective = float((gradient * (1 - free.float())).square().sum()) / 2
    natural = float(F.cross_entropy(logits.detach(), labels))
    return natural + loss.jacobian_weight * jacobian + selective


AT_ZERO = {
    MART: boosted,
    IAT: mixup,
    JSIGR: penalised,
    AdvBNN: with_prior,
}  # what a loss without perturbations is, where it is not the natural one


@every_loss
def test_at_eps_zero_every_loss_is_its_natural_form(loss):
    # no noise around TRADES's start either: it is clipped to a ball of radius zero
    images, labels = small_batch()
    found = with_eps(loss, 0.0)(small_for(loss), images, labels, generator())
    natural = Natural()(small_for(loss), images, labels, generator())
    limit = AT_ZERO.get(type(loss), lambda *_: natural.loss.item())
    loss = with_eps(loss, 0.0)
    assert found.loss.item() == pytest.approx(limit(loss, small_for(loss), images, labels), rel=1e-5)
    if not isinstance(loss, IAT | AdvBNN):  # which see mixed images, or by another draw
        torch.testing.assert_close(found.logits, natural.logits)


@every_loss
def test_bf16_logits_give_a_float32_loss(loss):
    images, labels = small_batch()
    if loss.twice_differentiated:
        with pytest.raises(ConfigError, match=r"precision is 'bf16', but loss .* is differentiated twice"):
            options(loss=loss, precision="bf16")
        return
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(small_for(loss), images, labels, generator())
    assert value.loss.dtype == torch.float32
    assert value.loss.item() == pytest.approx(
        loss(small_for(loss), images, labels, generator()).loss.item(), rel=0.1
    )


@every_loss
def test_the_order_of_channels_in_memory_changes_rounding_alone(loss):
    images, labels = (t.double() if t.is_floating_point() else t for t in small_batch())
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        model = small_for(loss).double().to(memory_format=order)
        value = loss(model, images.contiguous(memory_format=order), labels, generator())
        value.loss.backward()
        found.append([value.loss.detach(), *(weight.grad for weight in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@every_loss
def test_a_training_by_it_that_is_stopped_resumes_to_the_same_bits(loss, tmp_path):
    values = options(loss=loss.model_copy(update={"projections": 2}) if isinstance(loss, JSIGR) else loss)
    assert_resumes(tmp_path, values, lambda: residual_for(loss))


@every_loss
def test_a_loss_counts_the_passes_of_its_attack_and_of_its_training_step(loss, monkeypatch):
    """An attack step is a forward pass and the images' gradient.

    Of all else, a forward pass or a gradient is one, and three where the training goes back through it.
    """
    model, (images, labels) = small_for(loss), small_batch()
    passes, reached = (
        [],
        set(),
    )  # rows of every forward pass and gradient; those that `backward` comes through

    def note(tensor):
        number = len(passes)
        passes.append(len(tensor))
        if tensor.requires_grad:
            tensor.register_hook(lambda _: reached.add(number))

    model.register_forward_hook(lambda module, inputs, output: note(output))
    gradient = torch.autograd.grad

    def noted(*given, **named):
        found = gradient(*given, **named)
        for each in found:
            note(each)
        return found

    monkeypatch.setattr(torch.autograd, "grad", noted)
    attack, crafted, clean_prediction = loss.inner_attack, 0, False
    if attack is not None:
        result = attack.run(model, images, labels, generator())
        forwards = result.forwards if attack.twice_differentiated else result.backwards  # one a step
        crafted = (forwards + result.backwards) // len(images)
        clean_prediction = attack.objective == "kl"
    own = sum(passes)
    value = loss(model, images, labels, generator())
    reached.clear()
    value.loss.backward()
    rows = sum(passes) - 2 * own + 2 * sum(passes[number] for number in reached)
    assert loss.passes == crafted + clean_prediction + rows / len(images)


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        (FGSM(eps=EPS), 1),
        (FGSMRS(eps=EPS), 1),
        (NFGSM(eps=EPS), 1),
        (PGD(eps=EPS, steps=1), 1),
        (PGD(eps=EPS, steps=7, keep="last"), 7),
        (PGD(eps=EPS, steps=7, restarts=2), 14),
    ],
)
def test_adversarial_training_takes_two_passes_a_step_and_three(attack, steps):
    assert PGDAT(attack=attack).passes == 2 * steps + 3
    assert Natural().passes == 3


def test_trades_takes_two_passes_a_step_and_seven():
    assert [TRADES(attack=PGD(eps=EPS, steps=k, loss="kl")).passes for k in (1, 10)] == [9, 27]


def test_natural_is_the_mean_cross_entropy():
    images, labels = small_batch()
    value = Natural()(small_network(), images, labels, generator())
    log_p = small_network()(images).detach().log_softmax(1)
    expected = -sum(float(log_p[i, label]) for i, label in enumerate(labels)) / len(labels)
    assert value.loss.item() == pytest.approx(expected, rel=1e-5)


def test_pgd_at_is_the_natural_loss_of_the_attacked_images():
    loss = LOSSES["pgd-at"]
    images, labels = small_batch()
    model = small_network()
    attacked = loss.attack(model, images, labels, generator())
    found = loss(small_network(), images, labels, generator())
    torch.testing.assert_close(found.loss, Natural()(small_network(), attacked, labels, generator()).loss)
    assert found.loss > Natural()(small_network(), images, labels, generator()).loss


def test_pgd_at_on_a_binary_linear_model_is_its_closed_form():
    """max over the ball of log(1 + exp(-m)) is log(1 + exp(-m + eps ||w_1 - w_0||_1)), m the margin."""
    model = linear_network(classes=2)
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    attack = PGD(eps=EPS, steps=3, step_size=EPS, keep="last")
    found = PGDAT(attack=attack)(model, images, torch.tensor([1]), generator()).loss.item()
    difference, bias = ((p[1] - p[0]).detach() for p in (model[1].weight, model[1].bias))
    margin = float((difference * 0.5).sum() + bias)
    expected = math.log(1 + math.exp(-margin + EPS * float(difference.abs().sum())))
    assert found == pytest.approx(expected, rel=1e-9)


def test_trades_without_beta_is_the_natural_loss():
    images, labels = small_batch()
    found = TRADES(attack=KL, beta=0.0)(small_network(), images, labels, generator())
    torch.testing.assert_close(found.loss, Natural()(small_network(), images, labels, generator()).loss)


def test_trades_grows_with_beta_by_the_divergence_between_clean_and_attacked():
    images, labels = small_batch()
    at = [
        TRADES(attack=KL, beta=b)(small_network(), images, labels, generator()).loss.item() for b in (0, 1, 6)
    ]
    attacked = KL(small_network(), images, labels, generator())
    p, q = (small_network()(x).detach().softmax(1) for x in (images, attacked))
    divergence = float((p * (p / q).log()).sum() / len(images))
    assert divergence > 0
    assert at[1] - at[0] == pytest.approx(divergence, rel=1e-4)
    assert at[2] - at[0] == pytest.approx(6 * divergence, rel=1e-4)


def test_trades_on_a_binary_linear_model_is_its_closed_form():
    """z = w.x; the worst point of the ball is x - eps sign(z w) where the KL grows faster that way.

    With p = sigmoid(z), q = sigmoid(z'), KL = p log(p/q) + (1-p) log((1-p)/(1-q)), and z' = z -+ eps ||w||_1.
    """
    weight = torch.tensor([[1.5, -2.0, 0.7, 1.1]], dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.cat([torch.zeros_like(weight), weight]))
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    z = float(weight.sum() * 0.5)
    attack = PGD(eps=EPS, steps=30, loss="kl", keep="best", restarts=3)
    found = TRADES(attack=attack, beta=2.0)(model, images, torch.tensor([1]), generator()).loss.item()

    def kl(z, moved):
        p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(-moved))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    reach = EPS * float(weight.abs().sum())
    worst = max(kl(z, z + reach), kl(z, z - reach))
    assert found == pytest.approx(math.log(1 + math.exp(-z)) + 2.0 * worst, rel=1e-6)


def test_trades_keeps_the_clean_and_the_attacked_batch_statistics_apart():
    images, labels = small_batch()
    model = small_network()
    found = TRADES(attack=KL, beta=0.0)(model, images, labels, generator())
    attacked = KL(small_network(), images, labels, generator())
    torch.testing.assert_close(found.logits, small_network()(attacked))


def test_trades_refuses_an_attack_on_the_cross_entropy():
    with pytest.raises(ConfigError, match=r"attack\.loss is 'ce'; TRADES needs 'kl'"):
        TRADES(attack=PGD(eps=EPS))


def test_a_loss_takes_only_attacks_that_are_fit_for_training():
    with pytest.raises(ConfigError, match=r"attack: got attack 'apgd', .*not fit for training.*n-fgsm"):
        PGDAT(attack={"name": "apgd", "eps": EPS})


def test_the_old_name_of_adversarial_training_is_answered_by_the_present_one():
    tree = {
        "loss": {"name": "pgd", "attack": {"name": "fgsm-rs", "eps": 0.1}},
        "validation_attack": {"eps": 0.1},
    }
    with pytest.raises(ConfigError, match=r"^training: loss: got name 'pgd'; is now 'pgd-at'$"):
        check(Training, tree, "training")


def test_losses_are_computed_in_float32_or_higher():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator())
    labels = torch.tensor([0, 1, 2, 3])
    assert torch.equal(cross_entropy(logits, labels), F.cross_entropy(logits, labels))
    assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32

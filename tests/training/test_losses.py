"""Training losses: one contract for all of them, and their closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_nas.attacks import FGSMRS, NFGSM, PGD
from robust_nas.errors import ConfigError
from robust_nas.training.options import PGDAT, Natural, Trades

EPS = 0.1
KL = PGD(eps=EPS, steps=3, loss="kl", keep="last")
LOSSES = {
    "natural": Natural(),
    "pgd": PGDAT(attack=PGD(eps=EPS, steps=3, keep="last")),
    "pgd-best-batch": PGDAT(attack=PGD(eps=EPS, steps=2, bn="batch")),
    "fgsm-rs": PGDAT(attack=FGSMRS(eps=EPS)),
    "n-fgsm": PGDAT(attack=NFGSM(eps=EPS)),
    "trades": Trades(attack=KL),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(classes=5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 25, classes),
        ).train()


def batch(seed=1, classes=5):
    images = torch.rand(8, 2, 5, 5, generator=generator(seed))
    return images, torch.randint(classes, (8,), generator=generator(seed + 1))


@every_loss
def test_a_loss_is_a_finite_scalar_that_every_weight_has_a_part_in(loss):
    model, (images, labels) = network(), batch()
    value = loss(model, images, labels, generator())
    assert value.loss.shape == ()
    assert value.loss.isfinite()
    assert value.loss > 0
    assert value.logits.shape == (8, 5)
    value.loss.backward()
    # the convolution's bias is taken away again by the batch norm behind it
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for name, p in model.named_parameters() if name != "0.bias")


@every_loss
def test_its_gradient_is_the_derivative_along_a_direction(loss):
    """At eps = 0, where no attack of its own moves with the weights."""
    attack = getattr(loss, "attack", None)
    if attack is not None:
        loss = loss.model_copy(update={"attack": attack.model_copy(update={"eps": 0.0})})
    images, labels = (t.double() if t.is_floating_point() else t for t in batch())
    model = network().double()
    loss(model, images, labels, generator()).loss.backward()
    weight = model[-1].weight
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator(5))
    values = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(h * direction)
            values.append(loss(model, images, labels, generator()).loss)
            weight.sub_(h * direction)
    slope = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(slope, (weight.grad * direction).sum(), rtol=1e-5, atol=1e-8)


@every_loss
def test_a_loss_is_decided_by_its_generator_and_leaves_the_global_one_alone(loss):
    images, labels = batch()
    before = torch.get_rng_state()
    found = [loss(network(), images, labels, generator(seed)).loss.item() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert (found[0] == found[2]) == isinstance(loss, Natural)


@every_loss
def test_a_loss_leaves_a_training_model_that_moved_its_batch_norm_once_per_image_seen(loss):
    model, (images, labels) = network(), batch()
    copies = images.clone(), labels.clone()
    loss(model, images, labels, generator())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    # the attack's passes leave no trace; TRADES trains on clean and on attacked images
    assert int(model[1].num_batches_tracked) == (2 if isinstance(loss, Trades) else 1)
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])


@every_loss
def test_at_eps_zero_every_loss_is_the_natural_one(loss):
    if isinstance(loss, Natural):
        return
    # no noise around TRADES's start either: it is clipped to a ball of radius zero
    attack = loss.attack.model_copy(update={"eps": 0.0})
    images, labels = batch()
    found = loss.model_copy(update={"attack": attack})(network(), images, labels, generator())
    expected = Natural()(network(), images, labels, generator())
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.logits, expected.logits)


def test_natural_is_the_mean_cross_entropy():
    images, labels = batch()
    value = Natural()(network(), images, labels, generator())
    log_p = network()(images).detach().log_softmax(1)
    expected = -sum(float(log_p[i, label]) for i, label in enumerate(labels)) / len(labels)
    assert value.loss.item() == pytest.approx(expected, rel=1e-5)


def test_madry_is_the_natural_loss_of_the_attacked_images():
    loss = LOSSES["pgd"]
    images, labels = batch()
    model = network()
    attacked = loss.attack(model, images, labels, generator())
    found = loss(network(), images, labels, generator())
    torch.testing.assert_close(found.loss, Natural()(network(), attacked, labels, generator()).loss)
    assert found.loss > Natural()(network(), images, labels, generator()).loss


def test_trades_without_beta_is_the_natural_loss():
    images, labels = batch()
    found = Trades(attack=KL, beta=0.0)(network(), images, labels, generator())
    torch.testing.assert_close(found.loss, Natural()(network(), images, labels, generator()).loss)


def test_trades_grows_with_beta_by_the_divergence_between_clean_and_attacked():
    images, labels = batch()
    at = [Trades(attack=KL, beta=b)(network(), images, labels, generator()).loss.item() for b in (0, 1, 6)]
    attacked = KL(network(), images, labels, generator())
    p, q = (network()(x).detach().softmax(1) for x in (images, attacked))
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
    found = Trades(attack=attack, beta=2.0)(model, images, torch.tensor([1]), generator()).loss.item()

    def kl(z, moved):
        p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(-moved))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    reach = EPS * float(weight.abs().sum())
    worst = max(kl(z, z + reach), kl(z, z - reach))
    assert found == pytest.approx(math.log(1 + math.exp(-z)) + 2.0 * worst, rel=1e-6)


def test_trades_keeps_the_clean_and_the_attacked_batch_statistics_apart():
    images, labels = batch()
    model = network()
    found = Trades(attack=KL, beta=0.0)(model, images, labels, generator())
    attacked = KL(network(), images, labels, generator())
    torch.testing.assert_close(found.logits, network()(attacked))


@every_loss
def test_bf16_logits_give_a_float32_loss(loss):
    images, labels = batch()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(network(), images, labels, generator())
    assert value.loss.dtype == torch.float32
    assert value.loss.item() == pytest.approx(
        loss(network(), images, labels, generator()).loss.item(), rel=0.1
    )


def test_trades_refuses_an_attack_on_the_cross_entropy():
    with pytest.raises(ConfigError, match=r"attack\.loss is 'ce'; TRADES needs 'kl'"):
        Trades(attack=PGD(eps=EPS))


def test_widened_losses_equal_torch_in_both_precisions():
    from robust_nas.training.losses.natural import cross_entropy

    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator())
    labels = torch.tensor([0, 1, 2, 3])
    assert torch.equal(cross_entropy(logits, labels), F.cross_entropy(logits, labels))
    assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32

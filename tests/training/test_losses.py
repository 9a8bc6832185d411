"""Training losses: one contract for all of them, and their closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_cases import EPS, KL, LOSSES, generator, linear_network, small_batch, small_network, with_eps

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD
from robust_nas.config import check
from robust_nas.errors import ConfigError
from robust_nas.training import LOSSES as REGISTRY
from robust_nas.training import PGDAT, TRADES, GradAlign, Natural, Training, cross_entropy
from robust_nas.training.losses.grad_align import input_gradient, misalignment
from robust_nas.training.modes import in_eval_mode

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def test_every_loss_of_the_registry_is_in_the_suite():
    assert {type(loss) for loss in LOSSES.values()} == {REGISTRY.get(name) for name in REGISTRY.built_in}


@every_loss
def test_a_loss_is_a_finite_scalar_that_every_weight_has_a_part_in(loss):
    model, (images, labels) = small_network(), small_batch()
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
    model = small_network().double()
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
    images, labels = small_batch()
    before = torch.get_rng_state()
    found = [loss(small_network(), images, labels, generator(seed)).loss.item() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert (found[0] == found[2]) == (loss.inner_attack is None)


@every_loss
def test_a_loss_leaves_a_training_model_that_moved_its_batch_norm_once_per_image_seen(loss):
    model, (images, labels) = small_network(), small_batch()
    copies = images.clone(), labels.clone()
    loss(model, images, labels, generator())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    # the attack's passes leave no trace; TRADES trains on clean and on attacked images
    assert int(model[1].num_batches_tracked) == (2 if isinstance(loss, TRADES) else 1)
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])


@every_loss
def test_at_eps_zero_every_loss_is_the_natural_one(loss):
    # no noise around TRADES's start either: it is clipped to a ball of radius zero
    images, labels = small_batch()
    found = with_eps(loss, 0.0)(small_network(), images, labels, generator())
    expected = Natural()(small_network(), images, labels, generator())
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.logits, expected.logits)


@every_loss
def test_bf16_logits_give_a_float32_loss(loss):
    images, labels = small_batch()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(small_network(), images, labels, generator())
    assert value.loss.dtype == torch.float32
    assert value.loss.item() == pytest.approx(
        loss(small_network(), images, labels, generator()).loss.item(), rel=0.1
    )


@every_loss
def test_a_loss_counts_the_passes_of_its_attack_and_of_its_training_step(loss):
    """An attack step is a forward pass and the images' gradient; a training step has both gradients."""
    model, (images, labels) = small_network(), small_batch()
    attack = loss.inner_attack
    found = 0
    if attack is not None:
        result = attack.run(model, images, labels, generator())
        products = result.forwards if attack.twice_differentiated else result.backwards
        found = (products + result.backwards) // len(images)
    forwards = []
    handle = model.register_forward_hook(lambda module, inputs, output: forwards.append(module.training))
    loss(model, images, labels, generator())
    handle.remove()
    trained = sum(forwards)
    clean_prediction = attack is not None and attack.objective == "kl"
    aligned = 2 + 6 if isinstance(loss, GradAlign) else 0  # two gradients, one of them differentiated again
    assert loss.passes == found + 3 * trained + clean_prediction + aligned


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


def test_grad_align_without_weight_is_training_on_fgsm():
    images, labels = small_batch()
    attack = FGSM(eps=EPS)
    found = GradAlign(attack=attack, weight=0.0)(small_network(), images, labels, generator())
    expected = PGDAT(attack=attack)(small_network(), images, labels, generator())
    assert torch.equal(found.loss, expected.loss)
    assert GradAlign(attack=attack, weight=0.0).passes == PGDAT(attack=attack).passes == 5
    assert GradAlign(attack=attack).passes == 13


def test_grad_align_is_zero_on_a_linear_binary_model_and_at_most_two():
    """There every gradient is a multiple of w_1 - w_0, of one sign for one label."""
    model, labels = linear_network(classes=2), torch.tensor([0, 1, 1])
    images = torch.rand(3, 1, 2, 2, dtype=torch.float64, generator=generator())
    loss = GradAlign(attack=FGSM(eps=EPS), weight=1.0)
    plain = PGDAT(attack=FGSM(eps=EPS))(model, images, labels, generator())
    torch.testing.assert_close(loss(model, images, labels, generator()).loss, plain.loss)
    g = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator(2))
    assert float(misalignment(g, -g)) == pytest.approx(2)
    assert float(misalignment(g, 3 * g)) == pytest.approx(0)
    assert float(misalignment(g, 0 * g)) == 0


def test_the_gradient_of_the_alignment_is_the_difference_of_its_values():
    """Only g(x + u) is differentiated: g(x) is held at its value."""
    model, (images, labels) = small_network().double(), small_batch()
    loss = GradAlign(attack=FGSM(eps=0.3))
    images = images.double()
    noisy = loss.noisy(images, generator())
    with in_eval_mode(model):
        fixed = input_gradient(model, images, labels).detach()

        def penalty():
            return misalignment(fixed, input_gradient(model, noisy, labels))

        weights = [model[0].weight, model[-1].weight]
        found = torch.autograd.grad(penalty(), weights)
        for weight, gradient in zip(weights, found, strict=True):
            direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator(5))
            values = []
            for h in (1e-6, -1e-6):
                with torch.no_grad():
                    weight.add_(h * direction)
                values.append(float(penalty().detach()))
                with torch.no_grad():
                    weight.sub_(h * direction)
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    assert all(module.training for module in model.modules())

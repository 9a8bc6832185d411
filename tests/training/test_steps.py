"""Training steps: one contract for all of them; nothing is read back from the device; what a recipe writes of them."""

import pytest
import torch
from training_cases import (
    LOSSES,
    STEPS,
    assert_resumes,
    generator,
    images,
    linear_network,
    loss_for,
    network,
    options,
    residual,
    residual_for,
    run_training,
    same_state,
    small_batch,
    small_for,
    small_network,
)

from robust_nas.attacks import PGD, inherit
from robust_nas.config import check, to_dict
from robust_nas.data import Augment
from robust_nas.errors import ConfigError
from robust_nas.run_folder import Run
from robust_nas.training import (
    IAT,
    JSIGR,
    PGDAT,
    Batch,
    FreeAT,
    Loss,
    Natural,
    Training,
    TrainingContext,
    TrainingHook,
    loop,
)
from robust_nas.training import STEPS as REGISTRY

every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


class Ridge(TrainingHook):
    """Half the squared length of the weights."""

    def __init__(self, network):
        self.weights = list(network.parameters())

    def penalty(self):
        return sum(weight.square().sum() for weight in self.weights) / 2


def started(step, model, hooks=(), loss=None):
    training = TrainingContext(
        network=model, loss=loss or loss_for(step), generator=generator(), batch_size=8
    )
    return step.start(training, hooks)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_every_step_of_the_registry_is_in_the_suite():
    assert {type(step) for step in STEPS.values()} == {REGISTRY.get(name) for name in REGISTRY.built_in}


@every_step
def test_a_step_leaves_gradients_in_the_parameters_and_a_sound_model(step):
    model, batch = small_for(step), Batch(*small_batch(), torch.arange(8))
    before = [p.detach().clone() for p in model.parameters()]
    global_draws = torch.get_rng_state()
    measured = started(step, model).gradients(batch)
    assert measured.loss.shape == measured.correct.shape == ()
    assert not measured.loss.requires_grad
    assert 0 <= int(measured.correct) <= 8
    assert all(p.grad.isfinite().all() and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(module.training for module in model.modules())
    assert batch.images.grad is None
    assert torch.equal(torch.get_rng_state(), global_draws)


@every_step
def test_a_step_is_decided_by_the_generator(step):
    found = []
    for _ in range(2):
        model = small_for(step)
        started(step, model).gradients(Batch(*small_batch(), torch.arange(8)))
        found.append(gradients(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@every_step
def test_a_step_adds_the_penalties_of_hooks_and_weighs_all_by_the_share(step):
    batch = Batch(*small_batch(), torch.arange(8))
    plain, ridge, part = small_for(step), small_for(step), small_for(step)
    whole = started(step, plain).gradients(batch)
    found = started(step, ridge, [Ridge(ridge), Ridge(ridge), TrainingHook()]).gradients(batch)
    half = started(step, part, [Ridge(part)] * 2).gradients(batch._replace(share=0.5))
    assert found.loss == whole.loss  # the loss that is logged is that of the recipe
    torch.testing.assert_close(half.loss, whole.loss / 2)
    for (name, p), r, h in zip(plain.named_parameters(), ridge.parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(r.grad, p.grad + 2 * p.detach(), msg=name)
        torch.testing.assert_close(h.grad, r.grad / 2, msg=name)


@every_step
def test_a_step_comes_back_with_its_state(step):
    one, other = started(step, small_for(step)), started(step, small_for(step))
    one.gradients(Batch(*small_batch(), torch.arange(8)))
    other.restore(one.state())
    assert same_state(other.state(), one.state())
    other.training.network.load_state_dict(one.training.network.state_dict())
    other.training.generator.set_state(one.training.generator.get_state())
    batch = Batch(*small_batch(seed=4), torch.arange(8))
    assert one.gradients(batch).loss == other.gradients(batch).loss


@every_step
def test_a_step_says_what_it_costs(step):
    loss = loss_for(step)
    assert options(step=step, loss=loss).passes == step.passes(loss) > 0
    assert step.batch_uses == started(step, small_for(step)).replays
    awp = options(step=step, loss=loss, hooks=[{"name": "awp"}])
    assert awp.passes == step.passes(loss) + step.batch_uses * loss.passes


@every_step
def test_a_step_takes_the_passes_that_it_says(step):
    """A pass forward in training mode comes with both gradients: 3."""
    model, loss = small_for(step), loss_for(step)
    images, labels = small_batch()
    attack = loss.inner_attack
    crafted = 0 if attack is None else attack.crafting_passes
    running, trained = started(step, model), []
    networks = getattr(model, "members", [model])  # a pass of all particles is one
    for module in networks:
        module.register_forward_hook(lambda module, inputs, output: trained.append(module.training))
    for _ in range(running.replays):
        running.gradients(Batch(images, labels, torch.arange(8)))
    assert step.passes(loss) == 3 * sum(trained) / len(networks) + step.batch_uses * crafted


@every_step
def test_a_training_by_a_step_resumes_to_the_same_bits(tmp_path, step):
    values = options(step=step, loss=loss_for(step))
    assert_resumes(tmp_path, values, lambda: residual_for(step))


def free(model, **options):
    return started(FreeAT(**options), model, loss=Natural())


def test_free_at_starts_as_natural_training_and_goes_on_with_the_perturbation_of_the_batch_before():
    one, other = small_network(), small_network()
    first, second = (Batch(*small_batch(seed), torch.arange(8)) for seed in (1, 7))
    step = free(one, eps=0.1, replays=1)
    step.gradients(first)
    assert started(STEPS["standard"], other, loss=Natural()).gradients(first).loss > 0
    assert all(
        torch.equal(g, h) for g, h in zip(gradients(one).values(), gradients(other).values(), strict=True)
    )
    x = first.images.clone().requires_grad_()
    Natural()(small_network(), x, first.labels, generator()).loss.backward()
    torch.testing.assert_close(step.delta, 0.1 * x.grad.sign())
    delta = step.delta.clone()
    moved = (second.images + delta).clamp(0, 1)
    expected = Natural()(other, moved, second.labels, generator()).loss
    assert torch.equal(step.attacked(second).images, moved)  # for hooks, such as AWP
    assert float(step.gradients(second).loss) == float(expected.detach())


def test_free_at_raises_the_loss_by_every_replay_within_its_ball():
    model, batch = small_network(), Batch(*small_batch(), torch.arange(8))
    step = free(model, eps=0.05, replays=4)
    losses = [float(step.gradients(batch).loss) for _ in range(step.replays)]  # the weights do not move here
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]
    assert step.delta.abs().max() <= 0.05


# A loss that fits parts makes images of its own, through which no gradient goes.
BY_GRADIENT = [loss for loss in LOSSES.values() if loss.inner_attack is None and not loss.fits_parts]


@pytest.mark.parametrize("loss", BY_GRADIENT)
def test_free_at_moves_the_images_by_the_gradient_of_any_loss_without_an_attack(loss):
    batch = Batch(*small_batch(), torch.arange(8))
    step = started(FreeAT(eps=0.1, replays=1), small_network(), loss=loss)
    step.gradients(batch)
    h, values = 1e-4, []
    way = torch.randn(batch.images.shape, dtype=torch.float64, generator=generator(5)) * 0.01
    for sign in (1, -1):
        moved = batch.images.double() + sign * h * way
        values.append(float(loss(small_network().double(), moved, batch.labels, generator()).loss.detach()))
    x = batch.images.double().requires_grad_()
    loss(small_network().double(), x, batch.labels, generator()).loss.backward()
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(float((x.grad * way).sum()), rel=1e-4)
    assert (step.delta.sign() == x.grad.sign()).float().mean() > 0.99


def test_free_at_moves_the_weights_as_often_as_it_replays(tmp_path):
    moved = []
    _, _, net = run_training(
        tmp_path / "a",
        options(step=FreeAT(eps=0.1, replays=3), loss="natural", epochs=1),
        hooks=[Counting(moved)],
    )
    assert len(moved) == 3 * 3  # three batches
    assert {int(m.num_batches_tracked) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {9}


def test_hooks_see_the_images_that_free_at_trains_on(tmp_path):
    step, seen = FreeAT(eps=0.1, replays=2), []

    class Watching(TrainingHook):
        def before_step(self, batch):
            seen.append(batch.images.clone())

    run_training(tmp_path, options(step=step, loss="natural", epochs=1), hooks=[Watching()])
    assert 0 < (seen[1] - seen[0]).abs().max() <= 0.1 + 1e-6


class Counting(TrainingHook):
    """Notes every step."""

    def __init__(self, seen):
        self.seen = seen

    def after_backward(self):
        self.seen.append(1)


def test_the_standard_step_is_the_gradient_of_the_loss_in_closed_form():
    model = linear_network()
    x = torch.rand(6, 1, 2, 2, dtype=torch.float64, generator=generator(3))
    labels = torch.arange(6) % 3
    measured = started(STEPS["standard"], model, loss=Natural()).gradients(Batch(x, labels, torch.arange(6)))
    logits = model(x).detach()
    error = logits.softmax(1) - torch.eye(3, dtype=torch.float64)[labels]
    torch.testing.assert_close(model[1].weight.grad, error.T @ x.flatten(1) / 6)
    assert int(measured.correct) == int((logits.argmax(1) == labels).sum())


READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "cpu", "numpy", "nonzero")


@pytest.mark.parametrize("build", [network, residual], ids=["cells", "residual"])
@pytest.mark.parametrize(
    "loss",
    [
        Natural(),
        *[PGDAT(attack=PGD(eps=0.1, steps=2, fold=fold, keep="last")) for fold in (False, True)],
        LOSSES["pgd-at-n-fgsm"],
        LOSSES["trades"],
        LOSSES["mart"],
        IAT(attack=PGD(eps=0.1, steps=2, keep="last"), layers="all"),
        JSIGR(attack=PGD(eps=0.1, steps=2, keep="last"), grid=4),
        LOSSES["second-order"],
        LOSSES["grad-align"],
    ],
    ids=[
        "natural",
        "pgd-at",
        "pgd-at-folded",
        "n-fgsm",
        "trades",
        "mart",
        "iat",
        "j-sigr",
        "second-order",
        "grad-align",
    ],
)
def test_a_training_step_reads_nothing_back_from_the_device(tmp_path, monkeypatch, loss, build):
    """After the first one, in which the folded copy is traced and compared."""
    assert reads_of_a_step(tmp_path, monkeypatch, build(), loss=loss) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"step": STEPS["ensemble"], "loss": LOSSES["pgd-at"]},
        # whose first step sees one particle alone
        {"step": STEPS["ig-bnn"], "loss": PGDAT(attack=PGD(eps=0.1, steps=2, fold=False, keep="last"))},
        {"loss": LOSSES["adv-bnn"]},
    ],
    ids=["ensemble", "ig-bnn", "adv-bnn"],
)
def test_nothing_is_read_back_for_particles_and_posteriors(tmp_path, monkeypatch, changes):
    build = residual_for(changes.get("step", changes["loss"]))
    assert reads_of_a_step(tmp_path, monkeypatch, build, **changes) == []


def reads_of_a_step(folder, monkeypatch, network, **changes):
    """Return what two steps read back from the device, behind a first one."""
    values = options(clip_norm=1.0, hooks=[{"name": "awp"}], **changes)
    with Run(folder, values) as run:
        job = loop._Training(run, network, images(24), images(8), values, Augment(crop=1, flip=True), 3)
        batch = torch.arange(8)
        job._one_step(batch)
        reads = []
        with monkeypatch.context() as patched:
            for name in READS:
                original = getattr(torch.Tensor, name)

                def noted(tensor, *arguments, name=name, original=original, **named):
                    reads.append(name)  # not raised: an attack survives a copy that fails
                    return original(tensor, *arguments, **named)

                patched.setattr(torch.Tensor, name, noted)
            job._one_step(batch)
            job._one_step(batch)
        job.read()
    return reads


def test_a_recipe_writes_step_and_hooks_only_where_they_are_not_the_default():
    """So that a folder of an older version, which lacks the keys, is still that of the same recipe."""
    plain = options()
    assert not {"step", "hooks"} & to_dict(plain).keys()
    asked = options(hooks=[{"name": "awp", "gamma": 0.02}])
    assert to_dict(asked)["hooks"] == [{"name": "awp", "gamma": 0.02, "warmup_epochs": 0}]
    for recipe in (plain, asked):
        assert check(Training, to_dict(recipe), "again") == recipe


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"hooks": [{"name": "awp", "gama": 1}]},
            r"hooks\.0\.gama: unknown key 'gama'; did you mean 'gamma'",
        ),
        ({"hooks": [{"name": "swap"}]}, r"hooks\.0: got name 'swap'; allowed: awp, swa, "),
        ({"step": {"name": "free"}}, r"step: got name 'free'; allowed: standard, free-at"),
        (
            {"loss": "free-at"},
            r"loss: got name 'free-at'; it is a training step: write step: {name: free-at}",
        ),
        ({"step": {"name": "free-at"}}, r"step\.eps: missing"),
        ({"step": {"name": "free-at", "eps": 0}}, r"step\.eps: got 0; more than 0 is needed"),
        ({"step": {"name": "free-at", "eps": 8}}, r"eps is 8 in linf.*did you mean 8/255"),
        ({"step": {"name": "free-at", "eps": 0.1}}, "loss 'pgd-at' attacks the images too.*such as natural"),
        ({"schedule": {"name": "sine"}}, r"schedule: got name 'sine'; allowed: cosine, piecewise"),
        (
            {"validation_attack": {"name": "square", "eps": 0.1}},
            r"validation_attack: got attack 'square'.*a bounded gradient attack is needed.*pgd",
        ),
        ({"validation_attack": {"name": "n-fgsm", "eps": 0.1}}, "bounded gradient attack"),
    ],
)
def test_a_mistake_in_a_recipe_is_placed(changes, match):
    with pytest.raises(ConfigError, match=match):
        options(**changes)


def test_free_at_takes_eps_of_the_threat_model():
    tree = {"loss": "natural", "step": {"name": "free-at"}, "validation_attack": {}}
    with inherit({"norm": "linf", "eps": 0.25}):
        assert check(Training, tree, "x").step == FreeAT(eps=0.25)


def test_a_loss_that_is_differentiated_twice_is_not_trained_in_bf16():
    class Smooth(Loss):
        name: str = "smooth"
        twice_differentiated = True

    assert options(loss=Smooth()).precision == "float32"
    with pytest.raises(ConfigError, match="precision is 'bf16', but loss 'smooth' is differentiated twice"):
        options(loss=Smooth(), precision="bf16")


def test_any_bounded_gradient_attack_may_validate():
    assert options(validation_attack={"eps": 0.1}).validation_attack == PGD(eps=0.1)
    assert options(validation_attack={"name": "apgd", "eps": 0.1}).validation_attack.name == "apgd"

"""Training hooks: one contract for all of them, and adversarial weight perturbation by its closed form."""

import pytest
import torch
from training_cases import (
    HOOKS,
    LOSSES,
    assert_resumes,
    extra_images,
    generator,
    linear_network,
    loss_under,
    options,
    run_training,
    same,
    same_state,
    small_batch,
)
from training_cases import small_network as network

from robust_nas.data import Images
from robust_nas.training import (
    AWP,
    SWA,
    Batch,
    EarlyStopping,
    EpsSchedule,
    ExtraImages,
    FrozenSparta,
    GaussianNoise,
    LabelSmoothing,
    Natural,
    NoiseLayers,
    OverfittingGuard,
    Standard,
    TrainingContext,
)
from robust_nas.training import HOOKS as REGISTRY

OWN_NETWORK = {FrozenSparta}  # with networks of its own it is trained and resumed in `test_frozen_sparta.py`
every_hook = pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS.keys())


def context(model, loss=None, seed=0):
    """A training of three epochs of two steps on small images."""
    pixels = torch.randint(0, 256, (16, 2, 5, 5), dtype=torch.uint8, generator=generator(8))
    shape = tuple(model[0].weight.shape[1:2]) if isinstance(model[0], torch.nn.Conv2d) else None
    images = Images(pixels, torch.arange(16) % 5) if shape == (2,) else None
    return TrainingContext(
        network=model,
        loss=loss or LOSSES["pgd-at"],
        generator=generator(seed),
        epochs=3,
        steps=2,
        batch_size=8,
        images=images,
        validation=images,
        optimiser=torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    )


def start(hook, training):
    """The hook in its running form, as the loop starts it; the extra images of the suite are of another shape."""
    if isinstance(hook, ExtraImages):
        hook = ExtraImages(path=extra_images("small.npz", shape=(2, 5, 5), classes=5), share=hook.share)
    started = hook.start(training)
    training.hooks.append(started)
    return started


def one_step(training, hooks, batch):
    """What the loop does until the optimiser moves the weights; the weights in the step come back."""
    step = Standard().start(training, hooks)
    for hook in hooks:
        batch = batch._replace(images=hook.augmented(batch.images))
    for hook in hooks:
        hook.before_step(batch)
    inside = {name: p.detach().clone() for name, p in training.network.named_parameters()}
    step.gradients(batch)
    for hook in hooks:
        hook.after_backward()
    return inside


def test_every_hook_of_the_registry_is_in_the_suite():
    assert {type(hook) for hook in HOOKS.values()} == {REGISTRY.get(name) for name in REGISTRY.built_in}


@every_hook
def test_a_hook_leaves_a_sound_model_and_moves_batch_norms_no_further_than_the_step(hook):
    model, plain = network(), network()
    batch = Batch(*small_batch(), torch.arange(8))
    one_step(context(plain), [], batch)
    training = context(model)
    started = start(hook, training)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for epoch in range(2):
        images = batch.images.clone()
        one_step(training, [started], batch)
        assert torch.equal(images, batch.images)
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        assert all(p.requires_grad and p.grad.isfinite().all() for p in model.parameters())
        assert all(module.training for module in model.modules())
        assert int(model[1].num_batches_tracked) == epoch + 1
        with started.applied():
            pass
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        assert isinstance(started.end_epoch(epoch), dict)


@every_hook
def test_a_hook_is_decided_by_the_generator_of_the_training(hook):
    found = []
    before = torch.get_rng_state()
    for _ in range(2):
        model = network()
        training = context(model)
        one_step(training, [start(hook, training)], Batch(*small_batch(), torch.arange(8)))
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(torch.get_rng_state(), before)


@every_hook
def test_a_hook_comes_back_with_its_state(hook):
    model = network()
    started, other = (start(hook, context(model)) for _ in range(2))
    started.end_epoch(0)
    started.validated(0, 0.5, 0.5)
    started.validated(1, 0.5, 0.5)
    other.restore(started.state())
    assert same_state(other.state(), started.state())
    assert other.stop == started.stop


@pytest.mark.parametrize(
    "hook", [hook for hook in HOOKS.values() if type(hook) not in OWN_NETWORK], ids=lambda hook: hook.name
)
def test_a_training_with_a_hook_resumes_to_the_same_bits(tmp_path, hook):
    values = options(hooks=[hook], loss=loss_under(hook, options().loss))
    assert_resumes(tmp_path, values)


# Options under which a hook changes nothing of a training.
LIMITS = {
    "awp": AWP(gamma=0.0),
    "swa": SWA(from_epoch=1),  # of the last epoch alone: the weights are its own
    "label-smoothing": LabelSmoothing(smoothing=0.0),
    "eps-schedule": EpsSchedule(epochs=7, start_share=1.0),
    "overfitting-guard": OverfittingGuard(images=8, drop=0.99, gap=0.99),
    "early-stopping": EarlyStopping(patience=2),
    "extra-images": ExtraImages(path=extra_images(), share=0.0),
    "gaussian-noise": GaussianNoise(sigma=0.0),
    "noise-layers": NoiseLayers(std_init=0.0, std_inner=0.0),
}


def test_every_hook_of_the_registry_has_a_limit():
    every = {REGISTRY.get(name) for name in REGISTRY.built_in}
    assert {type(hook) for hook in LIMITS.values()} == every - OWN_NETWORK


@pytest.mark.parametrize("hook", LIMITS.values(), ids=LIMITS.keys())
def test_a_hook_at_its_limit_is_training_without_it(tmp_path, hook):
    loss = loss_under(hook, options().loss)
    plain, records, net = run_training(tmp_path / "plain", options(loss=loss))
    found, again, other = run_training(tmp_path / "hook", options(loss=loss, hooks=[hook]))
    assert same(other.state_dict(), net.state_dict())
    keys = ("epoch", "loss", "train_accuracy")
    assert [{k: r[k] for k in keys} for r in again] == [{k: r[k] for k in keys} for r in records]
    weights = {name for name, _ in net.named_parameters()}
    if found.epoch == plain.epoch:
        assert all(torch.equal(found.state[name], plain.state[name]) for name in weights & plain.state.keys())
    if not isinstance(hook, SWA):
        assert same(found.state, plain.state)


@every_hook
def test_a_hook_says_what_it_costs(hook):
    loss = loss_under(hook, LOSSES["pgd-at"])
    recipe = options(hooks=[hook], loss=loss)
    assert hook.passes(recipe) >= 0
    assert recipe.passes == loss.passes + hook.passes(recipe)


@every_hook
def test_a_step_with_a_hook_takes_the_passes_that_it_says(hook):
    """Those of every step; measuring and renewing statistics at the end of an epoch are counted apart."""
    counts, loss = [], loss_under(hook, LOSSES["pgd-at"])
    for hooks in ([], [hook]):
        training, seen = context(network(), loss), []
        started = [start(each, training) for each in hooks]
        for each in started:
            each.end_epoch(0)  # where it begins late
        training.network.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(1))
        one_step(training, started, Batch(*small_batch(), torch.arange(8)))
        counts.append(len(seen))
    always = hook.model_copy(update={"warmup_epochs": 0}) if isinstance(hook, AWP) else hook
    recipe, at_ends = options(hooks=[always], loss=loss), isinstance(hook, SWA)
    assert counts[1] / counts[0] == 1 + (always.passes(recipe) - at_ends) / recipe.loss.passes


def test_swa_takes_at_most_one_pass_of_every_image_where_it_is_validated():
    training, seen = context(network()), []
    started = start(SWA(from_epoch=0), training)
    started.end_epoch(0)
    training.network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with started.applied():
        assert int(training.network[1].num_batches_tracked) == 2
    assert sum(seen) == len(training.images) == 16 * SWA(from_epoch=0).passes(options())
    assert [SWA().passes(options(epochs=8, validate_every=n)) for n in (1, 3)] == [2 / 8, 2 / 8]
    assert SWA().passes(options(epochs=8, validate_from=7)) == 1 / 8
    assert int(training.network[1].num_batches_tracked) == 0  # the training goes on with its own


def test_awp_perturbs_every_weight_by_gamma_of_its_length_and_nothing_else():
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training = context(model)
    inside = one_step(training, [AWP(gamma=0.03).start(training)], Batch(*small_batch(), torch.arange(8)))
    for name, weight in before.items():
        moved = (inside[name] - weight).norm() / weight.norm()
        if weight.dim() > 1:
            assert float(moved) == pytest.approx(0.03, rel=1e-4)
        else:
            assert torch.equal(inside[name], weight)


def test_awp_on_a_linear_model_is_its_closed_form():
    """W + v has v = gamma ||W|| G / ||G||, G = (p - y) x^T / B; the step's gradient is that at W + v."""
    model = linear_network()
    images = torch.rand(6, 1, 2, 2, dtype=torch.float64, generator=generator(3))
    labels = torch.arange(6) % 3
    weight, bias = model[1].weight.detach().clone(), model[1].bias.detach().clone()

    def gradient(weight):
        x = images.flatten(1)
        error = (x @ weight.T + bias).softmax(1) - torch.eye(3, dtype=torch.float64)[labels]
        return error.T @ x / len(x)

    ascent = gradient(weight)
    perturbed = weight + 0.1 * weight.norm() * ascent / ascent.norm()
    training = context(model, Natural())
    one_step(training, [AWP(gamma=0.1).start(training)], Batch(images, labels, torch.arange(6)))
    torch.testing.assert_close(model[1].weight.grad, gradient(perturbed))
    assert torch.equal(model[1].weight, weight)


def test_awp_raises_the_loss_of_the_step():
    batch = Batch(*small_batch(), torch.arange(8))
    losses = []
    for gamma in (0.0, 0.02, 0.1):
        training = context(network(), Natural())
        hook = AWP(gamma=gamma).start(training)
        hook.before_step(batch)
        losses.append(float(training.value(batch.images, batch.labels).loss.detach()))
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_awp_twice_puts_the_weights_back_as_awp_once_does(tmp_path):
    """As where a recipe has it, and a method that it is compared by too."""
    slow = {"learning_rate": 1e-9, "weight_decay": 0.0}
    _, _, still = run_training(tmp_path / "plain", options(**slow))
    _, _, net = run_training(tmp_path / "twice", options(hooks=[AWP(gamma=0.3), AWP(gamma=0.5)], **slow))
    for one, other in zip(net.parameters(), still.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hook", [AWP(gamma=0.0), AWP(gamma=0.5, warmup_epochs=2)])
def test_awp_of_no_size_or_before_its_first_epoch_is_training_without_it(tmp_path, hook):
    plain, records, net = run_training(tmp_path / "plain", options(drop_path=0.4))
    found, again, other = run_training(tmp_path / "awp", options(drop_path=0.4, hooks=[hook]))
    assert same(found.state, plain.state)
    assert same(other.state_dict(), net.state_dict())
    assert again == records


def test_awp_changes_a_training_from_its_first_epoch_on(tmp_path):
    _, plain, net = run_training(tmp_path / "plain", options())
    _, records, other = run_training(tmp_path / "awp", options(hooks=[HOOKS["awp-late"]]))
    assert records[0] == plain[0]
    assert records[1]["loss"] > plain[1]["loss"]
    assert not same(other.state_dict(), net.state_dict())

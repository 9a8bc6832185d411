"""DSARA's two steps: what each descends, what each moves, and both orders against plain autograd."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from dsara_steps import (
    CLASSES,
    SPACE,
    WEIGHTS,
    alpha_gradient,
    alpha_step,
    changed,
    direct,
    draw,
    make,
    relative,
    snapshot,
    two_stages,
    unrolled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.errors import ConfigError
from robust_nas.nets import Supernet
from robust_nas.search import DSARA, Batch, OneShotSearch
from robust_nas.search.min_norm import min_norm
from robust_nas.search.one_shot.batch import flatten
from robust_nas.spaces import load_space


def names(supernet):
    """The names of weights, alphas and buffers in the state."""
    alphas = {name for name, _ in supernet.named_parameters() if name.startswith("alphas.")}
    weights = {name for name, _ in supernet.named_parameters()} - alphas
    return weights, alphas, {name for name, _ in supernet.named_buffers()}


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("warm", [False, True], ids=["first-step", "with-momentum"])
@pytest.mark.parametrize("stage", [1, 2])
def test_second_order_is_autograd_through_the_unrolled_step(stage, warm):
    search = make(order=2, finite_difference=1e-4, warm=warm, execution="plain")  # for double backward
    assert warm == any("momentum_buffer" in state for state in search.weight_optimiser.state.values())
    v, w = draw(1), draw(2)
    step = alpha_gradient(search, stage, v, w)
    loss, gradient = unrolled(search, v.adversarial, v.labels, w)
    assert relative(step.adversarial, gradient) < 1e-6
    torch.testing.assert_close(step.loss_adversarial, loss)
    # the term through w' is no trifle: without it the same comparison fails by far
    assert relative(direct(search, v.adversarial, v.labels)[1], gradient) > 1e-2
    if stage == 2:
        loss, gradient = unrolled(search, v.natural, v.labels, w)
        assert relative(step.natural, gradient) < 1e-6
        torch.testing.assert_close(step.loss_natural, loss)


@pytest.mark.parametrize("stage", [1, 2])
def test_both_executions_take_the_same_second_order_step(stage):
    fused, plain = (make(order=2, execution=execution) for execution in ("fused", "plain"))
    steps = [alpha_gradient(search, stage, draw(1), draw(2)) for search in (fused, plain)]
    torch.testing.assert_close(steps[0].gradient, steps[1].gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("smooth")
def test_the_second_order_error_shrinks_with_the_finite_difference():
    v, w = draw(1), draw(2)
    errors = []
    for r in (1e-1, 1e-2, 1e-3, 1e-4):
        search = make(order=2, finite_difference=r, execution="plain")
        _, gradient = unrolled(search, v.adversarial, v.labels, w)
        errors.append(relative(alpha_gradient(search, 1, v, w).gradient, gradient))
    assert all(small < large for large, small in pairwise(errors))
    assert errors[1] < 1e-2  # at the default


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_second_order_without_learning_rate_is_first_order(seed):
    search = make(order=2, seed=seed)
    for group in search.weight_optimiser.param_groups:
        group["lr"] = 0.0
    v = draw(seed)
    found = alpha_gradient(search, 2, v, draw(seed + 1))
    torch.testing.assert_close(found.adversarial, direct(search, v.adversarial, v.labels)[1])


@pytest.mark.parametrize("stage", [1, 2])
def test_first_order_is_plain_autograd(stage):
    search = make(order=1)
    v = draw(1)
    step = alpha_gradient(search, stage, v, draw(2))
    loss, gradient = direct(search, v.adversarial, v.labels)
    torch.testing.assert_close(step.adversarial, gradient)
    torch.testing.assert_close(step.loss_adversarial, loss)
    if stage == 2:
        torch.testing.assert_close(step.natural, direct(search, v.natural, v.labels)[1])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_alpha_gradient_leaves_everything_as_it_was(stage, order):
    search = make(order=order)
    search.supernet.train()
    before = snapshot(search.supernet)
    generator = torch.get_rng_state()
    alpha_gradient(search, stage, draw(1), draw(2))
    assert changed(before, search.supernet) == set()
    assert all(module.training for module in search.supernet.modules())
    assert all(p.requires_grad and p.grad is None for p in search.supernet.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_weights_come_back_when_the_second_order_fails_halfway():
    search = make(order=2)
    before = snapshot(search.supernet)
    batch = draw(1)
    with pytest.raises(IndexError):
        alpha_gradient(search, 1, batch._replace(labels=batch.labels + 100), draw(2))
    assert changed(before, search.supernet) == set()


@pytest.mark.parametrize("order", [1, 2])
def test_stage_one_descends_the_adversarial_loss_alone(order):
    search = make(order=order, adversarial_weight=7.0)
    v, w = draw(1), draw(2)
    seen = []
    handle = search.supernet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    step = alpha_gradient(search, 1, v, w)
    handle.remove()
    assert not any(x is v.natural or torch.equal(x, v.natural) for x in seen)
    assert (step.natural, step.loss_natural, step.gamma) == (None, None, None)
    assert torch.equal(
        step.gradient, step.adversarial
    )  # and lambda, which would only rescale it, is left out
    other = v._replace(natural=draw(9).natural)
    assert torch.equal(alpha_gradient(search, 1, other, w).gradient, step.gradient)


@pytest.mark.parametrize("order", [1, 2])
def test_stage_two_descends_the_min_norm_point_of_both_losses(order):
    search = make(order=order)
    v, w = draw(1), draw(2)
    step = alpha_gradient(search, 2, v, w)
    gamma, combined = min_norm(step.natural, step.adversarial)
    assert torch.equal(step.gamma, gamma)
    assert torch.equal(step.gradient, combined)
    assert step.gradient.norm() <= min(step.natural.norm(), step.adversarial.norm()) + 1e-12
    assert not torch.allclose(step.gradient, alpha_gradient(search, 1, v, w).gradient)
    other = v._replace(natural=draw(9).natural)
    assert not torch.allclose(alpha_gradient(search, 2, other, w).gradient, step.gradient)


def test_one_gamma_is_found_over_all_alpha_matrices_at_once():
    search = make()
    step = alpha_gradient(search, 2, draw(1), draw(2))
    assert step.gamma.dim() == 0
    assert step.natural.shape == (sum(alpha.numel() for alpha in search.alphas.values()),)


def test_combine_sum_adds_the_two_gradients():
    v, w = draw(1), draw(2)
    plain = alpha_gradient(make(combine="sum"), 2, v, w)
    assert torch.equal(plain.gradient, plain.natural + plain.adversarial)
    assert plain.gamma is None


@pytest.mark.parametrize("weight", [0.1, 3.0])
@pytest.mark.parametrize("combine", ["sum", "min-norm"])
def test_lambda_scales_the_adversarial_gradient_of_stage_two(weight, combine):
    v, w = draw(1), draw(2)
    plain = alpha_gradient(make(combine=combine), 2, v, w)
    scaled = alpha_gradient(make(combine=combine, adversarial_weight=weight), 2, v, w)
    torch.testing.assert_close(scaled.adversarial, weight * plain.adversarial)
    assert torch.equal(scaled.natural, plain.natural)
    assert torch.equal(scaled.loss_adversarial, plain.loss_adversarial)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("order", [1, 2])
def test_the_alpha_step_moves_the_alphas_by_adam_and_nothing_else(stage, order):
    search = make(order=order)
    before = snapshot(search.supernet)
    twin = [alpha.detach().clone().requires_grad_() for alpha in search.alphas.values()]
    options = search.strategy.alphas
    adam = torch.optim.Adam(twin, options.learning_rate, options.betas, weight_decay=options.weight_decay)
    step = alpha_step(search, stage, draw(1), draw(2))
    _, alphas, _ = names(search.supernet)
    assert changed(before, search.supernet) == alphas
    for alpha, piece in zip(twin, step.gradient.split([a.numel() for a in twin]), strict=True):
        alpha.grad = piece.view_as(alpha)
    adam.step()
    assert all(torch.equal(a, b) for a, b in zip(search.alphas.values(), twin, strict=True))
    assert all(p.grad is None for p in search.supernet.parameters())


def test_the_weight_step_moves_weights_and_batch_norm_buffers_and_nothing_else():
    search = make()
    before = snapshot(search.supernet)
    batch = draw(1)
    loss, logits = search.weight_step(batch)
    weights, _, buffers = names(search.supernet)
    running = {name for name in buffers if not name.startswith("normalise.")}
    assert changed(before, search.supernet) == weights | running
    assert all(p.grad is None for p in search.supernet.parameters())
    torch.testing.assert_close(loss, F.cross_entropy(logits, batch.labels))


@pytest.mark.parametrize("clip_norm", [1e-3, 1e6])
def test_the_weight_step_is_sgd_on_the_clipped_adversarial_gradient(clip_norm):
    options = WEIGHTS.model_copy(update={"clip_norm": clip_norm, "weight_decay": 0.0})
    search = make(weights=options, warm=False)
    twin = copy.deepcopy(search.supernet).train()
    batch = draw(1)
    search.weight_step(batch)
    F.cross_entropy(twin(batch.adversarial), batch.labels).backward()
    gradients = [w.grad for w in twin.weights()]
    scale = min(1.0, clip_norm / float(flatten(gradients).norm()))
    for moved, start, gradient in zip(search.weights, twin.weights(), gradients, strict=True):
        torch.testing.assert_close(moved, start - 0.2 * scale * gradient, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": {"filters": [1, 2, 4]}},
        {"layout": {"stages": ["normal", "normal", "normal"]}},
    ],
    ids=["filters-1:2:4", "two-kinds"],
)
def test_the_ablations_of_the_space_are_searched(changes):
    space = load_space("dsara", {"nodes": 1, "operations": ["skip_connect", "sep_conv_3x3"], **changes})
    supernet = Supernet(space, CLASSES, 1, channels=2, cells=4).double()
    search = OneShotSearch(two_stages(), supernet, space)
    before = snapshot(supernet)
    alpha_step(search, 2, draw(1), draw(2))
    assert changed(before, supernet) == {f"alphas.{kind}" for kind in space.layout.kinds}
    search.weight_step(draw(2))


def test_a_supernet_without_a_kind_of_cell_is_refused():
    space = load_space("dsara", {"nodes": 1, "operations": ["skip_connect", "sep_conv_3x3"]})
    with pytest.raises(ConfigError, match=r"search\.cells: got 3; .* no robust cell"):
        OneShotSearch(DSARA(), Supernet(space, CLASSES, 1, channels=2, cells=3), space)


def test_bf16_takes_the_losses_in_float32():
    supernet = Supernet(SPACE, CLASSES, 1, channels=2, cells=3)
    search = OneShotSearch(two_stages(precision="bf16", order=2), supernet, SPACE)
    batch = Batch(*(t.float() if t.is_floating_point() else t for t in draw(1)[:3]))
    assert alpha_step(search, 2, batch, batch).loss_natural.dtype == torch.float32
    loss, logits = search.weight_step(batch)
    assert (loss.dtype, logits.dtype) == (torch.float32, torch.bfloat16)


def test_the_attacked_copy_follows_a_change_of_the_supernet_that_is_marked():
    search, other = make(), make(seed=1)
    v = draw(1)
    before = search.attack(v.natural, v.labels, torch.Generator().manual_seed(0))
    search.supernet.load_state_dict(other.supernet.state_dict())
    search.mark_changed()
    found, expected = (
        each.attack(v.natural, v.labels, torch.Generator().manual_seed(0)) for each in (search, other)
    )
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, before)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_reads_nothing_back_from_the_device_but_the_comparison_of_the_first_copy(stage, monkeypatch):
    search = make()
    v, w = draw(1), draw(2)
    search.attack(v.natural, v.labels, torch.Generator().manual_seed(0))
    search.mark_changed()

    def refuse(*_):
        raise AssertionError("a synchronisation")

    for name in ("tolist", "item", "cpu", "__bool__", "__float__", "__int__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    search.attack(v.natural, v.labels, torch.Generator().manual_seed(0))
    alpha_gradient(search, stage, v, w)  # not the step: Adam counts on the host
    search.weight_step(w)

"""The fused supernet is the plain one: outputs, every gradient, batch norm's statistics, in every mode."""

import pytest
import torch
import torch.nn.functional as F
from supernet_pairs import CHANGED, FEWER, SPACES, assert_same, batch, everything, pair
from torch import nn
from torch.nn.utils import prune

from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.errors import ConfigError
from robust_nas.nets import Supernet
from robust_nas.spaces import load_space


@pytest.mark.parametrize(("mode", "side"), [("train", 16), ("train", 9), ("eval", 9), ("mixed", 8)])
@pytest.mark.parametrize("space", [*SPACES, *CHANGED])
def test_the_fused_supernet_is_the_plain_one(space, mode, side):
    fused, plain = pair(space)
    for net in (fused, plain):
        net.train(mode != "eval")
        if mode == "mixed":
            net.cells[1].eval()
    assert_same(everything(fused, *batch(side)), everything(plain, *batch(side)))


@pytest.mark.parametrize("space", SPACES)
def test_with_batch_statistics_and_frozen_buffers(space):
    fused, plain = pair(space, changes=FEWER)
    with attack_mode(fused, "batch"), attack_mode(plain, "batch"):
        before = {name: buffer.clone() for name, buffer in fused.named_buffers()}
        x, labels = batch(8)
        found = []
        for net in (fused, plain):
            z = x.clone().requires_grad_()
            found.append(torch.autograd.grad(F.cross_entropy(net(z), labels), z)[0])
        assert all(torch.equal(before[name], buffer) for name, buffer in fused.named_buffers())
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("space", SPACES)
def test_training_steps_lead_to_the_same_weights_alphas_and_statistics(space):
    states = []
    for net in pair(space, changes=FEWER):
        net.train()
        optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        for step in range(4):
            x, labels = batch(8, seed=step)
            optimiser.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimiser.step()
        states.append(net.state_dict())
    assert_same(*states, tolerance=1e-8)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("space", SPACES)
def test_rounding_in_float32_is_of_the_size_of_the_plain_one(space, mode):
    exact = everything(pair(space, changes=FEWER)[1].train(mode == "train"), *batch(16))
    errors = []
    for net in pair(space, dtype=torch.float32, changes=FEWER):
        found = everything(net.train(mode == "train"), *batch(16, torch.float32))
        errors.append(
            {
                group: sum(float((found[name].double() - exact[name]).square().sum()) for name in names)
                ** 0.5
                for group, names in {
                    "logits": ["logits"],
                    "images": ["images"],
                    "alphas": [name for name in exact if name.startswith("alphas")],
                    "weights": [name for name in exact if name.endswith("weight")],
                    "statistics": [name for name in exact if "running" in name],
                }.items()
            }
        )
    fused, plain = errors
    assert all(fused[group] <= 3 * plain[group] for group in plain), errors


def test_alphas_alone_and_weights_alone_can_be_asked_for():
    fused, plain = pair("dsara", changes=FEWER)
    x, labels = batch(8)
    for names in ("alphas", "weights"):
        found = []
        for net in (fused, plain):
            wanted = list(net.alphas.values()) if names == "alphas" else net.weights()
            for parameter in net.parameters():
                parameter.requires_grad = any(parameter is one for one in wanted)
            found.append(torch.autograd.grad(F.cross_entropy(net(x), labels), wanted))
        for own, other in zip(*found, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_the_second_derivative_is_the_plain_one():
    found = []
    for net in pair("dsara", channels=2, changes=FEWER):
        x = batch(8, count=2)[0].requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).exp().sum(), x, create_graph=True)
        found.append(
            torch.autograd.grad(gradient.square().sum(), list(net.parameters())[:50], allow_unused=True)
        )
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-12)


def gelu(net):
    for module in [*net.cells.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())


def pruned(net):
    prune.l1_unstructured(net.cells[0].edges[0][5][1], "weight", 0.5)


def untracked(net):
    for module in net.cells[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
            module.track_running_stats = False


def cumulative(net):
    for module in net.cells[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


def frozen(net):
    for module in [module for module in net.cells[1].modules() if isinstance(module, nn.BatchNorm2d)][::3]:
        module.eval()


def normed(net):
    nn.utils.parametrizations.weight_norm(net.cells[0].edges[0][5][1])


@pytest.mark.parametrize("change", [gelu, pruned, untracked, cumulative, frozen, normed])
def test_what_a_user_has_changed_is_honoured(change):
    fused, plain = pair("dsara", changes=FEWER)
    found = []
    for net in (fused, plain):
        change(net.train())
        net.zero_grad()
        x, labels = batch(8)
        F.cross_entropy(net(x), labels).backward()
        found.append({name: p.grad for name, p in net.named_parameters()} | dict(net.named_buffers()))
    assert_same(*found)
    folded = fused.folded()
    assert (folded is None) == (change is pruned)  # which hooks a module
    if folded is not None:
        x = batch(8)[0]
        torch.testing.assert_close(folded(x), plain.eval()(x), rtol=1e-9, atol=1e-12)


def test_hooks_inside_are_called():
    fused, plain = pair("dsara", changes=FEWER)
    calls = []
    for net in (fused, plain):
        for module in net.cells[0].modules():
            module.register_forward_hook(lambda *_: calls.append(0))
        calls.clear()
        net(batch(8)[0])
        net.calls = len(calls)
    assert fused.calls == plain.calls > 0


def test_an_unknown_execution_is_refused():
    with pytest.raises(ConfigError, match=r"supernet.execution: got 'Plain'; allowed: fused, plain"):
        Supernet(load_space("dsara"), execution="Plain")


def test_autocast_stays_close_to_float32():
    fused, _ = pair("dsara", dtype=torch.float32, changes=FEWER)
    x, _ = batch(16, torch.float32)
    fused.eval()
    with torch.no_grad():
        exact = fused(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = fused(x)
    assert half.float().sub(exact).norm() < 0.1 * exact.norm()

"""The supernet of samples computes one operation an edge: fused, plain and folded are the same function."""

import copy

import pytest
import torch
import torch.nn.functional as F
from supernet_pairs import assert_same, batch, everything, unusual

from robust_nas.attacks.folding import folded
from robust_nas.nets import Supernet, channels_last
from robust_nas.nets.sampled_supernet import SampledSupernet
from robust_nas.nets.supernet import MixedOperation
from robust_nas.spaces import load_space

SPACES = {"dsara": {"nodes": 2}, "darts": {"nodes": 2}, "nas-bench-201": {}}  # and changes


def chosen(net, seed):
    generator = torch.Generator().manual_seed(seed)
    operations = len(net.space.operations)
    return {
        kind: torch.randint(operations, (len(net.space.edges),), generator=generator).tolist()
        for kind in net.space.kinds
    }


def pair(name, seed=1):
    """A fused and a plain supernet with one sample, weighted by the softmax of alpha."""
    fused = SampledSupernet(load_space(name, SPACES[name]), 10, 3, 3, 4, mean=(0.4,) * 3, std=(0.3,) * 3)
    fused = channels_last(unusual(fused).double())
    plain = copy.deepcopy(fused)
    plain.execution = "plain"
    for net in (fused, plain):
        net.take(chosen(net, seed), lambda kind, alpha: alpha.softmax(1))
    return fused, plain


@pytest.mark.parametrize(("mode", "side"), [("train", 9), ("eval", 8)])
@pytest.mark.parametrize("name", SPACES)
def test_the_fused_supernet_is_the_plain_one(name, mode, side):
    assert_same(*(everything(net.train(mode == "train"), *batch(side, count=3)) for net in pair(name)))


@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_mixture_in_which_the_others_weigh_nothing(name):
    _, sampled = pair(name)
    whole = Supernet(sampled.space, 10, 3, 3, 4, mean=(0.4,) * 3, std=(0.3,) * 3, execution="plain").double()
    whole.load_state_dict(sampled.state_dict())
    weights = sampled.edge_weights()
    for cell in whole.cells:
        mask = torch.zeros_like(weights[cell.kind])
        mask[range(len(mask)), chosen(sampled, 1)[cell.kind]] = 1
        weights[cell.kind] = weights[cell.kind] * mask
    whole.edge_weights = lambda: weights
    x, _ = batch(8, count=3)
    torch.testing.assert_close(sampled(x), whole(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_the_folded_supernet_is_the_sample_in_eval_mode(name):
    fused, plain = pair(name)
    x, labels = batch(8, count=3)
    found = []
    for net in (fused.folded(), plain.eval()):
        z = x.clone().requires_grad_()
        logits = net(z)
        found.append([logits.detach(), *torch.autograd.grad(F.cross_entropy(logits, labels), z)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("execution", ["fused", "plain"])
def test_only_what_is_sampled_is_computed(execution):
    net = pair("dsara")[execution == "plain"].train()
    calls = []
    for place, cell in enumerate(net.cells):
        for edge, operations in enumerate(cell.edges):
            assert type(operations) is MixedOperation
            for index, operation in enumerate(operations):
                operation.register_forward_hook(lambda *_, called=(place, edge, index): calls.append(called))
    for seed in (1, 2):
        sample = chosen(net, seed)
        net.take(sample, lambda kind, alpha: alpha.softmax(1))
        calls.clear()
        net(batch(8, count=2)[0])
        assert sorted(calls) == [
            (place, edge, index)
            for place, cell in enumerate(net.cells)
            for edge, index in enumerate(sample[cell.kind])
        ]


def test_before_the_first_sample_it_is_the_mixture():
    net = unusual(SampledSupernet(load_space("dsara", SPACES["dsara"]), 10, 3, 2, 4)).double()
    whole = Supernet(load_space("dsara", SPACES["dsara"]), 10, 3, 2, 4).double()
    whole.load_state_dict(net.state_dict())
    x, _ = batch(8, count=2)
    assert torch.equal(net(x), whole(x))


def test_a_kept_trace_of_one_sample_does_not_serve_another():
    net = pair("dsara")[1].eval().requires_grad_(False)
    x, _ = batch(8, count=3)
    for seed in (1, 2, 3):
        net.take(chosen(net, seed), lambda kind, alpha: alpha.softmax(1))
        network = folded(net, x, once=True).network
        torch.testing.assert_close(network(x), net(x), rtol=1e-9, atol=1e-12)

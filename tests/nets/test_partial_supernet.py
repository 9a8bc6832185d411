"""The supernet of PC-DARTS: its cell against the published definition, fused and folded forms against the cell."""

import copy

import pytest
import torch
import torch.nn.functional as F
from supernet_pairs import assert_same, batch, everything, unusual

from robust_nas.errors import ConfigError
from robust_nas.nets import channels_last
from robust_nas.nets.partial_channels import shuffled
from robust_nas.nets.partial_supernet import PartialSupernet
from robust_nas.spaces import load_space

CASES = {"dsara": (8, 4), "darts": (4, 2), "nas-bench-201": (4, 4)}  # channels, k
CHANGES = {"dsara": {"nodes": 2}, "darts": {"nodes": 2}}


def pair(name, cells=4):
    """A fused and a plain supernet of the same weights, architecture parameters and statistics."""
    channels, k = CASES[name]
    space = load_space(name, CHANGES.get(name, {}))
    fused = unusual(PartialSupernet(space, 10, 3, channels, cells, mean=(0.4,) * 3, std=(0.3,) * 3, k=k))
    fused = channels_last(fused.double())
    plain = copy.deepcopy(fused)
    plain.execution = "plain"
    return fused, plain


def published(cell, s0, s1, alpha, beta, k):
    """The nodes of a cell as the paper has them: edge after edge, each shuffled, beta outside."""
    states = [module(s) for module, s in ((cell.preprocess0, s0), (cell.preprocess1, s1)) if module]
    inputs = len(states)
    for node in range(cell.num_nodes):
        edges = [edge for edge, (end, _) in enumerate(cell.ends) if end == node]
        shares = torch.stack([beta[edge] for edge in edges]).softmax(0)
        total = 0
        for edge, share in zip(edges, shares, strict=True):
            source = cell.ends[edge][1]
            x = states[source]
            c = x.shape[1] // k
            part, rest = x[:, :c], x[:, c:]
            weights = alpha[edge].softmax(0)
            mixed = sum(w * operation(part) for w, operation in zip(weights, cell.edges[edge], strict=True))
            if mixed.shape[2:] != x.shape[2:]:
                rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
            joined = torch.cat([mixed, rest], dim=1)
            b, channels, h, w = joined.shape
            joined = joined.view(b, k, channels // k, h, w).transpose(1, 2).reshape(b, channels, h, w)
            total = total + share * joined
        states.append(total)
    return torch.cat([states[inputs + node] for node in cell.output], dim=1)


def channels_of(module, cell):
    """The channels of an input of a cell; None where there is no such input, or it comes from a reduction."""
    if isinstance(module, torch.nn.Identity):
        return cell.channels
    return module[1].in_channels if hasattr(module, "__getitem__") else None


@pytest.mark.parametrize("name", CASES)
def test_a_cell_is_the_published_one(name):
    _, net = pair(name)
    weights = net.edge_weights()
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for cell in net.cells:
        s0, s1 = (
            torch.rand(2, width, 6, 6, generator=generator).double()
            if (width := channels_of(module, cell))
            else None
            for module in (cell.preprocess0, cell.preprocess1)
        )
        if s1 is None or (s0 is None and cell.inputs == 2):
            continue  # behind a reduction, of which the others are no different
        alpha, beta = net.alphas[cell.kind], net.betas[cell.kind]
        expected = published(cell, s0, s1, alpha, beta, net.k)
        torch.testing.assert_close(cell(s0, s1, weights[cell.kind]), expected, rtol=1e-9, atol=1e-12)
        kinds.add(cell.kind)
    assert len(kinds) == min(2, len(net.space.kinds))  # one that reduces, and one that does not


def test_the_shuffle_is_torchs():
    x = torch.rand(2, 12, 3, 5)
    for k in (2, 3, 4, 6):
        c = 12 // k
        assert torch.equal(shuffled(x[:, :c], x[:, c:]), F.channel_shuffle(x, k))


@pytest.mark.parametrize(("mode", "side"), [("train", 9), ("eval", 8)])
@pytest.mark.parametrize("name", CASES)
def test_the_fused_supernet_is_the_plain_one(name, mode, side):
    found = [everything(net.train(mode == "train"), *batch(side, count=3)) for net in pair(name)]
    assert_same(*found)
    assert any(value.abs().max() > 0 for key, value in found[0].items() if key.startswith("betas"))


@pytest.mark.parametrize("side", [8, 5])
@pytest.mark.parametrize("name", CASES)
def test_the_folded_supernet_is_the_one_in_eval_mode(name, side):
    fused, plain = pair(name)
    x, labels = batch(side, count=3)
    found = []
    for net in (fused.folded(), plain.eval()):
        z = x.clone().requires_grad_()
        logits = net(z)
        found.append([logits.detach(), *torch.autograd.grad(F.cross_entropy(logits, labels), z)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
    assert plain.folded() is None
    z = x.clone().requires_grad_()
    once = fused.folded()(z).exp().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(once, z, create_graph=True)


def test_betas_are_no_weights_and_rank_the_edges():
    net = pair("darts")[0]
    assert not {id(beta) for beta in net.betas.values()} & {id(weight) for weight in net.weights()}
    names = [name for name, _ in net.named_parameters() if not name.startswith(("alphas", "betas"))]
    assert len(net.weights()) == len(names)
    with torch.no_grad():
        for kind in net.alphas:
            net.alphas[kind].zero_()
            net.betas[kind].copy_(torch.arange(len(net.betas[kind])))
    for cell in net.derive().genotype:
        for node, edges in enumerate(cell.nodes):
            assert [edge.source for edge in edges] == [node, node + 1]  # the last two, which weigh most


def test_channels_that_k_does_not_divide_are_refused():
    with pytest.raises(
        ConfigError, match=r"search.channels: a cell has 6 channels, which search.k = 4 does not"
    ):
        PartialSupernet(load_space("dsara"), 10, 3, 6, 4)

"""The supernet: its published structure, the one-hot limit, sharing of alphas, and DARTS's derivation rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.nets import CellNetwork, Supernet
from robust_nas.nets.build import build_network, channels_last
from robust_nas.spaces import Cell, CellArchitecture, Edge, load_space

DSARA, DARTS = load_space("dsara"), load_space("darts")
OPERATIONS = DSARA.operations
POOLS = ("max_pool_3x3", "avg_pool_3x3")


def images(batch: int = 4, side: int = 8, colours: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, colours, side, side, generator=torch.Generator().manual_seed(seed))


def test_darts_supernet_has_the_size_that_the_official_code_prints() -> None:
    """1.930618 MB with C = 16 and 8 cells; that code's eighth operation, none, has no weights."""
    assert sum(weight.numel() for weight in Supernet(DARTS, channels=16, cells=8).weights()) == 1_930_618


def test_dsara_supernet_is_the_published_structure() -> None:
    supernet = Supernet(DSARA, channels=24)
    assert [cell.kind[0] for cell in supernet.cells] == list("aaraarrr")  # accurate, reduce, robust
    assert {kind: tuple(alpha.shape) for kind, alpha in supernet.alphas.items()} == {
        "accurate": (14, 7),
        "reduce": (14, 7),
        "robust": (14, 7),
    }
    assert sum(alpha.numel() for alpha in supernet.alphas.values()) == 294
    filters = [cell.preprocess1[1].out_channels for cell in supernet.cells]
    assert filters == [24, 24, 48, 48, 48, 48, 48, 48]  # C : 2C : 2C
    assert supernet.classifier.in_features == 4 * 48
    norms = [
        module for cell in supernet.cells for module in cell.modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert not any(norm.affine for norm in norms)
    assert sum(weight.numel() for weight in supernet.weights()) == 1_882_930


def test_alphas_are_shared_inside_a_kind_and_weights_are_not() -> None:
    supernet = Supernet(DSARA, 10, 1, 4, 8)
    assert len({id(weight) for weight in supernet.weights()}) == len(supernet.weights())
    assert len(supernet.weights()) + 3 == len(list(supernet.parameters()))
    (gradient,) = torch.autograd.grad(supernet(images()).sum(), supernet.alphas["accurate"])
    assert gradient.abs().sum() > 0
    first, second = supernet.cells[0].edges[0][3][1].weight, supernet.cells[1].edges[0][3][1].weight
    assert first.data_ptr() != second.data_ptr()
    assert not torch.equal(first, second)


def one_hot(supernet: Supernet, choice: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        for kind, alpha in supernet.alphas.items():
            alpha.fill_(-1e4)
            alpha[torch.arange(len(alpha)), torch.as_tensor(choice[kind])] = 1e4


def chosen_network(
    supernet: Supernet, choice: dict[str, np.ndarray], cells: int, channels: int
) -> CellNetwork:
    """The network that has all 14 edges, each with its chosen operation, and the supernet's weights."""
    space = supernet.space
    genotype = []
    for kind in space.layout.kinds:
        nodes: list[list[Edge]] = [[] for _ in range(space.nodes)]
        for (node, source), index in zip(space.edges, choice[kind], strict=True):
            nodes[node].append(Edge(space.operations[index], source))
        genotype.append(Cell(kind=kind, nodes=tuple(map(tuple, nodes)), concat=(2, 3, 4, 5)))
    architecture = CellArchitecture(
        name="chosen", cells=cells, channels=channels, layout=space.layout, genotype=tuple(genotype)
    )
    network = build_network(architecture, input_shape=(1, 8, 8), affine=False, seed=99)
    for mine, theirs in zip(network.cells, supernet.cells, strict=True):
        mine.preprocess0, mine.preprocess1 = theirs.preprocess0, theirs.preprocess1
        for number, (node, source) in enumerate(space.edges):
            index = choice[theirs.kind][number]
            operation = theirs.edges[number][index]
            if space.operations[index] in POOLS:
                mine.nodes[node][source] = (
                    operation  # with the batch norm that the supernet puts behind a pooling
                )
            else:
                mine.nodes[node][source].load_state_dict(operation.state_dict())
    network.stem, network.classifier, network.normalise = (
        supernet.stem,
        supernet.classifier,
        supernet.normalise,
    )
    return network


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([DSARA, DARTS]))
def test_with_one_hot_alphas_the_supernet_is_the_chosen_operations(
    seed: int, train: bool, space: object
) -> None:
    rng = np.random.default_rng(seed)
    supernet = Supernet(space, 10, 1, 4, 5, seed=seed % 1000)  # type: ignore[arg-type]
    choice = {kind: rng.integers(0, 7, 14) for kind in supernet.alphas}
    one_hot(supernet, choice)
    network = chosen_network(supernet, choice, 5, 4)
    for module in (supernet, network):
        module.train(train)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.0  # modules that both nets hold must not move between the two passes
    with torch.no_grad():
        torch.testing.assert_close(supernet(images()), network(images()), rtol=1e-4, atol=1e-5)


def test_the_mixture_is_the_softmax_weighted_sum() -> None:
    supernet = Supernet(DSARA, 10, 1, 4, 4).eval()
    edge = supernet.cells[0].edges[0]
    x, alpha = torch.randn(2, 4, 8, 8), torch.randn(7)
    weights = alpha.exp() / alpha.exp().sum()
    expected = sum(weights[index] * edge[index](x) for index in range(7))
    torch.testing.assert_close(edge(x, alpha.softmax(0)), expected)


def set_alphas(supernet: Supernet, values: torch.Tensor) -> None:
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha.copy_(values)


def test_derive_keeps_the_two_strongest_edges_of_a_node_with_their_best_operation() -> None:
    supernet = Supernet(DSARA, 10, 1, 2, 4)
    alphas = torch.zeros(14, 7)
    alphas[0, 3], alphas[1, 0] = 2.0, 1.0  # node 0: both inputs
    alphas[2, 4], alphas[3, 5], alphas[4, 6] = 1.0, 3.0, 2.0  # node 1: sources 1 and 2
    alphas[5, 1], alphas[8, 2] = 1.0, 5.0  # node 2: sources 0 and 3
    alphas[9:, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])  # node 3: sources 3 and 4
    set_alphas(supernet, alphas)
    derived = supernet.derive("hand-made")
    expected = (
        (("sep_conv_3x3", 0), ("max_pool_3x3", 1)),
        (("dil_conv_3x3", 1), ("dil_conv_5x5", 2)),
        (("avg_pool_3x3", 0), ("skip_connect", 3)),
        (("skip_connect", 3), ("skip_connect", 4)),
    )
    assert all(cell.nodes == expected for cell in derived.genotype)
    assert (derived.name, derived.cells, derived.channels) == ("hand-made", 20, 64)
    assert derived.layout == DSARA.layout


def test_an_edge_is_judged_by_its_softmax_and_not_by_its_alpha() -> None:
    supernet = Supernet(DSARA, 10, 1, 2, 4)
    alphas = torch.zeros(14, 7)
    alphas[2] = 10.0  # large alphas, but all alike: softmax 1/7
    alphas[3, 1] = alphas[4, 1] = 0.5
    set_alphas(supernet, alphas)
    assert [edge.source for edge in supernet.derive().genotype[0].nodes[1]] == [1, 2]


def test_ties_go_to_the_earlier_source_and_the_earlier_operation() -> None:
    supernet = Supernet(DSARA, 10, 1, 2, 4)
    set_alphas(supernet, torch.zeros(14, 7))
    nodes = ((("max_pool_3x3", 0), ("max_pool_3x3", 1)),) * 4
    assert all(cell.nodes == nodes for cell in supernet.derive().genotype)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_derive_agrees_with_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    supernet = Supernet(DSARA, 2, 1, 2, 4)
    values = {kind: rng.normal(size=(14, 7)) for kind in supernet.alphas}
    with torch.no_grad():
        for kind, alpha in supernet.alphas.items():
            alpha.copy_(torch.from_numpy(values[kind]))
    for cell in supernet.derive().genotype:
        mixing = np.exp(values[cell.kind])
        mixing /= mixing.sum(1, keepdims=True)
        row = 0
        for number, node in enumerate(cell.nodes):
            rows = mixing[row : row + number + 2]
            row += number + 2
            best = sorted(sorted(range(number + 2), key=lambda source: -rows[source].max())[:2])
            assert node == tuple((OPERATIONS[rows[source].argmax()], source) for source in best)


def test_a_seed_decides_weights_and_alphas_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (Supernet(DSARA, 10, 1, 4, 4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.alphas["robust"], other.alphas["robust"])
    spread = torch.cat([alpha.flatten() for alpha in one.alphas.values()]).std()
    assert 0.8e-3 < spread < 1.2e-3


def test_channels_last_keeps_the_values_and_the_format() -> None:
    plain, last = (Supernet(DSARA, 10, 3, 4, 4).eval() for _ in range(2))
    last = channels_last(last)
    x = images(colours=3)
    with torch.no_grad():
        expected = plain(x)
        torch.testing.assert_close(
            last(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5
        )
        stem = last.stem(x.to(memory_format=torch.channels_last))
        cell = last.cells[0](stem, stem, torch.full((14, 7), 1 / 7))
    assert stem.is_contiguous(memory_format=torch.channels_last)
    assert cell.is_contiguous(memory_format=torch.channels_last)


def test_autocast_runs_the_convolutions_in_bf16() -> None:
    supernet = Supernet(DSARA, 10, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        logits = supernet(images())
    assert logits.dtype == torch.bfloat16
    gradients = torch.autograd.grad(logits.float().logsumexp(1).sum(), list(supernet.alphas.values()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("cells", [1, 10**6])
def test_an_impossible_depth_is_our_error(cells: int) -> None:
    with pytest.raises(Exception, match=f"cells: got {cells}"):
        Supernet(DSARA, 10, 1, 4, cells)

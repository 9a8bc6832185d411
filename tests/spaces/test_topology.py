"""The topology of a cell is data of its space: supernet, sampling, derivation, counts and networks follow it."""

import itertools

import pytest
import torch
from torch import nn

from robust_nas.config import to_dict
from robust_nas.errors import SearchSpaceError
from robust_nas.nets import Supernet, build_network
from robust_nas.nets.cost import measured_cost
from robust_nas.spaces import Size, Topology, architecture_from_text, count, load_space, sample

OPERATIONS = ["skip_connect", "sep_conv_3x3", "max_pool_3x3", "nor_conv_1x1", "none"]
SIZE = {"cells": 4, "channels": 2}
TOPOLOGIES = [
    {"inputs": inputs, "sources": sources, "aggregation": aggregation, "output": output}
    for inputs, sources, aggregation, output in itertools.product(
        (1, 2), ("all", "last"), ("sum", "mean"), ("concat", "last")
    )
]


def space_of(topology, edges_per_node="all", nodes=3):
    changes = {
        "nodes": nodes,
        "edges_per_node": edges_per_node,
        "operations": OPERATIONS,
        "topology": topology,
        "search": SIZE,
        "network": SIZE,
    }
    return load_space("dsara", changes)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_without_the_key_a_space_has_darts_s_topology_and_is_written_without_it():
    for name in ("darts", "dsara"):
        space = load_space(name)
        assert space.topology == Topology()
        assert "topology" not in to_dict(space)
        drawn = sample(space, 1)
        assert all(set(to_dict(cell)) == {"kind", "nodes", "concat"} for cell in drawn.genotype)
        assert space.edges == [(node, source) for node in range(4) for source in range(node + 2)]
        assert space.output == (2, 3, 4, 5)


def test_the_states_that_a_node_takes_and_those_of_the_output():
    one = space_of({"inputs": 1, "output": "last"})
    assert one.edges == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert (one.output, [one.kept(node) for node in range(3)]) == ((3,), [1, 2, 3])
    chain = space_of({"sources": "last"})
    assert chain.edges == [(0, 1), (1, 2), (2, 3)]
    assert (chain.output, [chain.kept(node) for node in range(3)]) == ((2, 3, 4), [1, 1, 1])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_a_space_draws_is_counted_as_it_is_built(topology):
    space = space_of(topology)
    for seed in range(2):
        drawn = sample(space, seed)
        assert space.mismatch(drawn) is None
        assert architecture_from_text(drawn.to_yaml(), "text") == drawn
        network = build_network(drawn, input_shape=(1, 7, 6), classes=3)
        assert count(drawn, (1, 7, 6), 3) == measured_cost(network, (1, 7, 6))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_fused_and_folded_supernets_compute_what_the_plain_one_does(topology):
    space = space_of(topology)
    plain, fused = (
        Supernet(space, 3, 1, **SIZE, seed=1, execution=execution).double()
        for execution in ("plain", "fused")
    )
    x = images(3, 1, 7, 6)
    found = []
    for supernet in (plain, fused):
        loss = supernet(x).square().sum()
        found.append([loss, *torch.autograd.grad(loss, list(supernet.alphas.values()))])
    assert all(torch.allclose(*pair, rtol=1e-9, atol=1e-12) for pair in zip(*found, strict=True))
    fused.eval()
    folded = fused.folded()
    assert folded is not None
    with torch.no_grad():
        assert torch.allclose(folded(x), fused(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_supernet_that_has_decided_computes_the_derived_network(topology):
    """With one operation an edge and no batch norm in the way, mixture and choice are one function."""
    space = space_of(topology)
    space = load_space(
        "dsara", {**to_dict(space), "operations": ["skip_connect"], "network": {"cells": 4, "channels": 2}}
    )
    supernet = Supernet(space, 3, 1, **SIZE, seed=1, execution="plain").double().eval()
    derived = supernet.derive()
    assert space.mismatch(derived) is None
    network = build_network(derived, input_shape=(1, 7, 6), classes=3, affine=False).double().eval()
    for name in ("stem", "classifier", "before_pooling"):
        getattr(network, name).load_state_dict(getattr(supernet, name).state_dict())
    for cell, target in zip(supernet.cells, network.cells, strict=True):
        for adapter in ("preprocess0", "preprocess1"):
            if getattr(cell, adapter) is not None:
                getattr(target, adapter).load_state_dict(getattr(cell, adapter).state_dict())
        for (node, source), mixed in zip(space.edges, cell.edges, strict=True):
            own = target.nodes[node]
            own[own.sources.index(source)].load_state_dict(mixed[0].state_dict())
    x = images(2, 1, 7, 6)
    with torch.no_grad():
        assert torch.allclose(network(x), supernet(x), rtol=1e-9, atol=1e-12)


def test_all_edges_are_kept_with_none_among_them_and_two_connect():
    for edges_per_node, chosen in (("all", "none"), (2, "nor_conv_1x1")):
        space = space_of({}, edges_per_node)
        supernet = Supernet(space, 3, 1, **SIZE)
        with torch.no_grad():
            for alpha in supernet.alphas.values():
                alpha.copy_(torch.arange(len(OPERATIONS)))  # none is the strongest, nor_conv_1x1 the next
        derived = supernet.derive()
        assert {name for cell in derived.genotype for name in cell.operations()} == {chosen}
        assert [len(node) for node in derived.genotype[0].nodes] == [space.kept(node) for node in range(3)]


def test_a_mean_is_the_sum_over_the_number_of_edges():
    spaces = [space_of({"aggregation": kind, "sources": "all"}, nodes=1) for kind in ("sum", "mean")]
    drawn = [
        sample(space, 3, size=Size(cells=4, channels=2)).model_copy(update={"name": "x"}) for space in spaces
    ]
    cells = [build_network(one, input_shape=(1, 8, 8), classes=2).double().eval().cells[0] for one in drawn]
    states = [images(1, 6, 8, 8), images(1, 6, 8, 8).flip(0)]
    with torch.no_grad():
        assert torch.allclose(cells[0](*states), 2 * cells[1](*states))


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"topology": {"inputs": 3}}, "topology.inputs: got 3"),
        ({"topology": {"output": "first"}}, "topology.output: got 'first'"),
        ({"topology": {"inputs": 1}}, "edges_per_node is 2; a node has only 1 sources, so write 1 or all"),
        ({"topology": {"sources": "last"}}, "edges_per_node is 2; a node has only 1 sources"),
        ({"topology": {"edges": "all"}}, "topology.edges: unknown key 'edges'"),
        ({"layout": {"reduction_cells": []}}, "layout.reduction_cells has 0 entries; 3 stages need 2"),
        ({"type": "residual"}, "type: got 'residual'; a residual network has no cells to search"),
        ({"type": "nas-bench-201"}, "residual blocks reduce in a network of NAS-Bench-201: leave it out"),
    ],
)
def test_a_topology_that_cannot_be_is_refused(changes, fragment):
    with pytest.raises(SearchSpaceError) as caught:
        load_space("dsara", changes)
    assert fragment in str(caught.value)


def test_an_architecture_of_another_topology_is_not_of_the_space():
    one, other = space_of({}), space_of({"aggregation": "mean"})
    assert "nodes that take the mean" in (one.mismatch(sample(other, 1)) or "")
    last = space_of({"output": "last"})
    assert "of which [4] are the output" in (one.mismatch(sample(last, 1)) or "")
    benchmark = load_space("nas-bench-201")
    assert one.mismatch(sample(benchmark, 1)) == "it is a network of NAS-Bench-201"
    silu = sample(one, 1).with_options(activation="silu")
    assert one.mismatch(silu) == "its activation is silu; a supernet has relu"
    assert isinstance(Supernet(one, 2, 1, **SIZE).before_pooling, nn.Identity)

"""Isomorphism classes against the benchmark's count and networkx, and the codec of NAS-Bench-201."""

import itertools
import random

import networkx as nx
import pytest

from robust_nas.errors import ArchitectureError
from robust_nas.spaces import NASBench201Architecture, ResidualArchitecture, load_space, sample
from robust_nas.spaces.isomorphism import cell_class, is_connected, isomorphism_class
from robust_nas.spaces.nas_bench_201 import CELLS, STRING, code_at, code_of, nodes_of, string_of

BENCHMARK = {"inputs": 1, "concat": (3,)}


def nb201(code):
    return cell_class(nodes_of(code), **BENCHMARK, simplify=True)


def test_nas_bench_201_has_6466_classes():
    codes = [code_at(index) for index in range(CELLS)]
    assert len({nb201(code) for code in codes}) == 6466
    assert sum(not is_connected(nodes_of(code), **BENCHMARK) for code in codes) == 341


def test_what_is_behind_a_zero_edge_vanishes_and_skip_edges_are_identities():
    assert nb201("000300") == nb201("000310"), "an edge behind a zero edge"
    assert nb201("130200") != nb201("130000")
    assert nb201("100030") == nb201("000300"), "a convolution behind a skip edge"
    assert nb201("010003") != nb201("000300"), "the benchmark keeps the zero within a sum that is convolved"


def random_cell(rng, nodes=3, operations=("a", "b")):
    found = []
    for number in range(nodes):
        sources = rng.sample(range(number + 2), 2)
        found.append([(rng.choice(operations), source) for source in sources])
    return found


def graph(nodes, concat):
    made = nx.MultiDiGraph()
    made.add_nodes_from((number, {"is": f"input {number}"}) for number in range(2))
    for number, node in enumerate(nodes, 2):
        made.add_node(number, **{"is": number in concat})
        made.add_edges_from((source, number, {"is": operation}) for operation, source in node)
    return made


def relabelled(nodes, rng):
    """The cell with its nodes in another order that keeps sources before their users, and its edges shuffled."""
    states, order, left = {0: 0, 1: 1}, [], list(range(2, len(nodes) + 2))
    while left:
        ready = [each for each in left if all(source in states for _, source in nodes[each - 2])]
        chosen = rng.choice(ready)
        left.remove(chosen)
        states[chosen] = len(states)
        order.append(chosen)
    return [
        rng.sample([(operation, states[source]) for operation, source in nodes[each - 2]], 2)
        for each in order
    ], states


def test_two_cells_have_one_class_just_when_their_graphs_are_isomorphic():
    rng = random.Random(0)  # noqa: S311 - cells, not secrets
    cells = [random_cell(rng) for _ in range(60)]
    cells += [relabelled(nodes, rng)[0] for nodes in cells[:20]]
    classes = [cell_class(nodes, inputs=2, concat=(2, 3, 4), simplify=False) for nodes in cells]
    graphs = [graph(nodes, (2, 3, 4)) for nodes in cells]
    same = 0
    for first, second in itertools.combinations(range(len(cells)), 2):
        equal = nx.is_isomorphic(
            graphs[first],
            graphs[second],
            node_match=lambda a, b: a["is"] == b["is"],
            edge_match=nx.algorithms.isomorphism.categorical_multiedge_match("is", None),
        )
        assert (classes[first] == classes[second]) == equal
        same += equal
    assert same >= 20


def test_nodes_that_compute_alike_are_told_apart_by_their_users():
    twins = [[("a", 0), ("a", 1)], [("a", 0), ("a", 1)]]
    ends = ([("a", 2), ("b", 3)], [("b", 2), ("a", 3)])
    crossed = [*twins, ends[0], ends[1]]
    straight = [*twins, ends[0], ends[0]]
    swapped = [*twins, ends[1], ends[1]]
    found = [
        cell_class(nodes, inputs=2, concat=(2, 3, 4, 5), simplify=False)
        for nodes in (crossed, straight, swapped)
    ]
    assert found[1] == found[2] != found[0]


def test_classes_of_networks_do_not_depend_on_size_or_name():
    for space in (load_space("nas-bench-201"), load_space("dsara")):
        found = sample(space, 0)
        other = found.resized(cells=9, channels=8).model_copy(update={"name": "other"})
        assert isomorphism_class(found) == isomorphism_class(other) != isomorphism_class(sample(space, 1))


def test_the_skip_of_a_reduction_cell_is_no_identity():
    space = load_space("darts")
    found = sample(space, 0)
    changed = found.genotype[1].model_copy(update={"concat": (2,)})
    nodes = [list(node) for node in changed.nodes]
    nodes[0][0] = nodes[0][0]._replace(operation="skip_connect")
    other = changed.model_copy(update={"nodes": tuple(map(tuple, nodes))})
    network = found.model_copy(update={"genotype": (found.genotype[0], other)})
    assert "skip_connect" in isomorphism_class(network).partition("reduce:")[2]


def test_families_without_a_genotype_have_no_class():
    with pytest.raises(ArchitectureError, match="has no genotype"):
        isomorphism_class(ResidualArchitecture.named("wrn-28-10"))


def test_codes_indices_and_strings_are_one_to_one():
    codes = [code_at(index) for index in range(CELLS)]
    assert [int(code, 5) for code in codes] == list(range(CELLS))
    strings = [string_of(code) for code in codes]
    assert len(set(strings)) == CELLS
    assert all(STRING.fullmatch(text) for text in strings[::100])
    assert [code_of(text) for text in strings[::7]] == codes[::7]
    architecture = NASBench201Architecture.from_string(strings[4711])
    assert (architecture.code, architecture.string) == (codes[4711], strings[4711])


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (code_of, "|nor_conv_3x3~0|+|none~0|skip_connect~1|"),
        (code_of, "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|"),
        (code_of, "|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        (nodes_of, "00000"),
        (nodes_of, "000005"),
        (code_at, -1),
        (code_at, CELLS),
    ],
)
def test_what_is_no_cell_of_the_benchmark_is_refused(call, value):
    with pytest.raises(ArchitectureError, match="got"):
        call(value)

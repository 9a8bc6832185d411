"""Codes: every genotype has one, neighbours are what brute force says, and costs are those of `count`."""

from itertools import product

import numpy as np
import pytest
from cases import small_space

from robust_nas.errors import ArchitectureError
from robust_nas.spaces import CodedCost, Encoding, Size, count, load_space, sample, shipped_names
from robust_nas.spaces.isomorphism import isomorphism_class

NODES = {"nodes": 3, "edges_per_node": 2, "operations": ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]}
KEPT = load_space("darts", NODES)  # cells of 1, 3 and 6 combinations of sources
SPACES = {name: load_space(name) for name in shipped_names()} | {
    "kept": KEPT,
    "one kept": load_space("darts", {**NODES, "edges_per_node": 1}),
    "last": load_space("nas-bench-201", {"topology": {"sources": "last"}}),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def draws(seed=0):
    return np.random.default_rng(seed)


@every_space
def test_architectures_and_codes_are_each_others_inverse(space):
    encoding, rng = Encoding(space), draws()
    for seed in range(5):
        architecture = sample(space, seed)
        code = encoding.encode(architecture)
        assert encoding.decode(code, architecture.name) == architecture
        assert encoding.check(list(code)) == code
        drawn = encoding.sample(rng)
        assert encoding.encode(encoding.decode(drawn)) == drawn


def test_every_genotype_has_one_code():
    encoding = Encoding(load_space("nas-bench-201", {"operations": ["none", "nor_conv_1x1"]}))
    codes = list(product(*map(range, encoding.sizes)))
    assert len({encoding.decode(code, "x") for code in codes}) == len(codes) == 2**6
    drawn = {encoding.sample(rng) for rng in map(draws, range(600))}
    assert drawn == set(codes)


def differences(a, b):
    """How many edges differ, nodes compared as sets of (operation, source)."""
    cells = zip(a.genotype, b.genotype, strict=True)
    nodes = (pair for one, other in cells for pair in zip(one.nodes, other.nodes, strict=True))
    return sum(len(set(one) - set(other)) for one, other in nodes)


@every_space
def test_neighbours_are_the_codes_that_differ_in_one_choice(space):
    encoding = Encoding(space)
    code = encoding.sample(draws(3))
    own = encoding.decode(code, "x")
    found = encoding.neighbours(code)
    assert len(set(found)) == len(found)
    assert code not in found
    assert all(differences(own, encoding.decode(each, "x")) == 1 for each in found)
    assert all(code in encoding.neighbours(each) for each in found[:40])
    assert {encoding.mutate(code, draws(seed)) for seed in range(40)} <= set(found)


def test_no_neighbour_is_missing():
    encoding = Encoding(small_space(nodes=2, operations=("skip_connect", "sep_conv_3x3", "max_pool_3x3")))
    code = encoding.sample(draws(1))
    # Per cell: 4 edges of 2 other operations; the second node may exchange each of its 2 sources for the third.
    assert len(encoding.neighbours(code)) == 3 * (4 * 2 + 2)


@every_space
def test_costs_are_those_of_count(space):
    encoding = Encoding(space)
    size = Size(cells=5 if space.type == "cell" else 3, channels=4)
    cost = CodedCost(encoding, size, (3, 16, 16), 10)
    for seed in range(8):
        code = encoding.sample(draws(seed))
        assert cost(code) == count(encoding.decode(code, "x", size), (3, 16, 16), 10)


@every_space
def test_the_key_is_the_isomorphism_class(space):
    encoding = Encoding(space)
    codes = [encoding.sample(draws(seed)) for seed in range(5)]
    assert [encoding.key(code) for code in codes] == [
        isomorphism_class(encoding.decode(code)) for code in codes
    ]


def test_what_is_no_code_and_no_architecture_of_the_space_is_refused():
    encoding = Encoding(KEPT)
    code = list(encoding.sample(draws()))
    for wrong in (code[1:], [*code[:-1], 3], [*code[:-1], -1], [*code[:-1], True], "code", None):
        with pytest.raises(ValueError, match=r"a code of \d+ integers|integer \d+ of a code"):
            encoding.check(wrong)
    with pytest.raises(ArchitectureError, match=r"is not of the space darts"):
        encoding.encode(sample(SPACES["dsara"], 0))

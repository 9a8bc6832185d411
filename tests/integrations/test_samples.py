"""NNI's samples and our architectures, each the other's inverse, for every shipped space. Runs without NNI."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.errors import ArchitectureError
from robust_nas.integrations.samples import from_sample, to_sample
from robust_nas.spaces import Size, load_architecture, load_space, sample, shipped_names

SPACES = {name: load_space(name) for name in shipped_names()}
DSARA = SPACES["dsara"]


@pytest.mark.parametrize("name", SPACES)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_architecture_of_a_shipped_space_comes_back_from_its_sample(name, seed):
    space = SPACES[name]
    architecture = sample(space, seed)
    found = to_sample(space, architecture)
    assert from_sample(space, found, architecture.name) == architecture
    assert len(found) == len(space.layout.kinds) * (len(space.edges) + space.nodes)


@pytest.mark.parametrize(("name", "space"), [("arnas", "dsara"), ("darts_v2", "darts")])
def test_published_architectures_keep_the_order_of_their_edges(name, space):
    architecture = load_architecture(name)
    size = Size(cells=architecture.cells, channels=architecture.channels)
    found = to_sample(SPACES[space], architecture)
    assert from_sample(SPACES[space], found, name, size) == architecture


@given(st.integers(0, 2**32 - 1), st.sampled_from(DSARA.operations))
def test_the_operation_of_an_edge_that_is_not_chosen_takes_no_part(seed, operation):
    found = to_sample(DSARA, sample(DSARA, seed))
    changed = {
        label: operation
        if label.count(".") == 2 and int(label.split(".")[2]) not in found[label.rpartition(".")[0]]
        else value
        for label, value in found.items()
    }
    assert from_sample(DSARA, changed) == from_sample(DSARA, found)
    assert to_sample(DSARA, from_sample(DSARA, changed)) == found


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"robust.0": [0]}, "has the sources [0]; 2 distinct ones of [0, 1] are needed"),
        ({"robust.3": [1, 1]}, "has the sources [1, 1]"),
        ({"robust.3": [1, 7]}, "robust.3.7"),
        ({"robust.3": None}, "not iterable"),
        ({"robust.0.0": "none"}, "its robust cell has operation 'none', not of max_pool_3x3"),
        ({"robust.0.0": 3}, "no sample of the space dsara"),
    ],
)
def test_a_sample_of_another_space_is_refused(changes, fragment):
    found = to_sample(DSARA, sample(DSARA, 0))
    with pytest.raises(ArchitectureError) as caught:
        from_sample(DSARA, {**found, **changes})
    assert fragment in str(caught.value)


def test_samples_of_nas_bench_201_name_every_source():
    space = load_space("nas-bench-201")
    architecture = sample(space, 2)
    found = to_sample(space, architecture)
    assert [found[f"cell.{node}"] for node in range(3)] == [[0], [0, 1], [0, 1, 2]]
    assert from_sample(space, found).genotype == architecture.genotype


def test_an_architecture_of_another_space_is_refused():
    architecture = sample(DSARA, 0)
    for changes, fragment in (
        ({"nodes": 3}, "cell has 4 nodes"),
        ({"edges_per_node": 1}, "1 distinct ones of .* are needed"),
        ({"operations": ["skip_connect"]}, "has operation"),
        ({"layout": {"stem": 2}}, "its layout is another"),
    ):
        with pytest.raises(ArchitectureError, match=f"is not of the space dsara: .*{fragment}"):
            to_sample(load_space("dsara", changes), architecture)
    with pytest.raises(ArchitectureError, match="its layout is another"):
        to_sample(DSARA, load_architecture("darts_v2"))

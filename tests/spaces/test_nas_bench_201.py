"""NAS-Bench-201: its published counts, its strings, and a search, a training step and an export of a tiny one."""

import pytest
import torch
from cases import config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas import run_search, train
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.export.source import export_source
from robust_nas.nets import Model, ModelDescription, build_network, read_model
from robust_nas.nets.cost import measured_cost
from robust_nas.spaces import (
    Cost,
    NASBench201Architecture,
    Size,
    architecture_from_text,
    count,
    load_architecture,
    load_space,
    parts,
    sample,
)
from robust_nas.spaces.naming import canonical_name
from robust_nas.spaces.nas_bench_201 import OPERATIONS
from robust_nas.workflows.search import draw_architecture

SPACE = load_space("nas-bench-201")


def string_of(operations):
    """Return the benchmark's string of six operations, edge by edge."""
    edges = iter(operations)
    nodes = [[f"{next(edges)}~{source}" for source in range(node + 1)] for node in range(3)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


STRINGS = st.lists(st.sampled_from(OPERATIONS), min_size=6, max_size=6).map(string_of)
CONVOLUTIONS = string_of(["nor_conv_3x3"] * 6)


def test_the_published_counts():
    found = load_architecture(CONVOLUTIONS)
    assert (found.cells, found.channels, found.layout.filters) == (15, 16, (1, 2, 4))
    assert count(found) == Cost(1_531_546, 220_119_680)
    network = build_network(found)
    assert measured_cost(network, (3, 32, 32)) == Cost(1_531_546, 220_119_680)
    assert network.classifier.bias is not None
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms)
    assert [part.name for part in parts(found)] == ["stem", "stage 1", "stage 2", "stage 3", "head"]


def test_the_space_is_the_benchmark_s():
    assert SPACE.edges == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert (SPACE.operations, SPACE.edges_per_node, SPACE.output) == (OPERATIONS, "all", (3,))
    assert (SPACE.kinds, SPACE.network) == (("cell",), Size(cells=15, channels=16))
    places = SPACE.places(SPACE.network)
    assert [place.c for place in places] == [16] * 5 + [32] * 5 + [64] * 5
    assert [index for index, place in enumerate(places) if place.reduction_prev] == [5, 10]
    assert not any(place.reduction for place in places)


@given(STRINGS)
def test_strings_are_read_and_written(string):
    found = load_architecture(string)
    assert found.string == string
    assert found == NASBench201Architecture.from_string(string)
    assert SPACE.mismatch(found) is None
    assert canonical_name(found) == found.name
    assert architecture_from_text(found.to_yaml(), "yaml") == found


def test_all_names_of_the_benchmark_differ():
    names = {load_architecture(string_of(edges)).name for edges in zip(*[OPERATIONS] * 6, strict=True)}
    assert names == {f"nb201-{str(digit) * 6}.c15.ch16" for digit in range(5)}
    small = NASBench201Architecture.from_string(CONVOLUTIONS, cells=3, channels=4)
    assert small.name == "nb201-333333.c3.ch4"
    assert canonical_name(small.resized(15, 16)) == "nb201-333333.c15.ch16"


@pytest.mark.parametrize(
    ("string", "fragment"),
    [
        ("|nor_conv_3x3~0|+|nor_conv_3x3~2|", "node 1: source 2 is not before it; allowed: 0..1"),
        ("|nor_conv_9x9~0|", "unknown operation"),
        ("|nor_conv_3x3|", "neither a shipped name nor a file"),
        ("nor_conv_3x3~0", "or a string of NAS-Bench-201, such as"),
    ],
)
def test_a_string_that_is_none_is_refused(string, fragment):
    with pytest.raises(ArchitectureError) as caught:
        load_architecture(string)
    assert fragment in str(caught.value)


@settings(max_examples=10)
@given(STRINGS, st.integers(1, 4), st.integers(2, 5), st.tuples(*[st.integers(1, 9)] * 3))
def test_any_network_counts_as_torch_counts(string, cells, channels, shape):
    found = NASBench201Architecture.from_string(string, cells + 1, channels)
    assert count(found, shape, 3) == measured_cost(build_network(found, input_shape=shape, classes=3), shape)


def test_a_network_is_trained_a_step_and_exported(tmp_path):
    found = sample(SPACE, 4, size=Size(cells=3, channels=4))
    network = build_network(found, input_shape=(1, 8, 8), classes=3, seed=1)
    network.set_drop_path(0.2)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    nn.functional.cross_entropy(network(images), torch.arange(6) % 3).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    assert any(not torch.equal(before[name], parameter) for name, parameter in network.named_parameters())
    description = ModelDescription(
        input_shape=(1, 8, 8), class_names=("a", "b", "c"), mean=(0.4,), std=(0.2,)
    )
    source, _ = export_source(Model(network.eval(), found, description), tmp_path)
    text = source.read_text()
    assert "robust_nas." not in text.replace("robust_nas.org", "")
    assert "class NASBench201Network(CellNetwork)" in text


def test_a_search_by_dsara_finds_a_cell_which_is_trained_and_drawn(tmp_path):
    own = config(
        "space={name: nas-bench-201}",
        "search={epochs: 2, stage1_epochs: 1, batch_size: 20, cells: 3, channels: 2, "
        "attack: {name: fgsm, eps: 0.1}}",
        "network={cells: 3, channels: 3}",
    )
    result = run_search(own, tmp_path / "search")
    found = result.architecture
    assert isinstance(found, NASBench201Architecture)
    assert (found.cells, found.channels) == (3, 3)
    assert SPACE.mismatch(found) is None
    assert load_architecture(found.string).genotype == found.genotype
    assert load_architecture(tmp_path / "search") == found
    assert result.record["params"] == count(found, (1, 8, 8), 10).params
    model = read_model(train(own, found, tmp_path / "model"))
    assert model.architecture == found
    paths = draw_architecture(found, tmp_path / "cells")
    rows = paths[-1].read_text().splitlines()
    assert rows[1] == f"cell,1,0,{found.genotype[0].nodes[0][0].operation}"
    assert rows[-1] == "cell,output,3,concat"


def test_an_auxiliary_head_is_refused_before_training(tmp_path):
    own = config("training.auxiliary_weight=0.4")
    found = sample(SPACE, 4, size=Size(cells=3, channels=4))
    with pytest.raises(ConfigError, match="a network of NAS-Bench-201, which has no auxiliary head"):
        train(own, found, tmp_path / "model")
    assert not (tmp_path / "model").exists()

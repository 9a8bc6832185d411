"""Architectures: exact round trips, identity by value, and every rule that a malformed one breaks."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_strategies import architectures

from robust_nas.config import to_dict
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.spaces import (
    CellArchitecture,
    Edge,
    architecture_from_text,
    load_architecture,
    load_space,
    sample,
    shipped_names,
)

ARNAS = load_architecture("arnas")


@given(architectures())
def test_yaml_and_json_read_back_the_equal_value_with_the_equal_hash(architecture: CellArchitecture) -> None:
    for text in (architecture.to_yaml(), json.dumps(to_dict(architecture)), architecture.model_dump_json()):
        again = architecture_from_text(text, "text")
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert again.to_yaml() == architecture.to_yaml()
        assert isinstance(again.genotype[0].nodes[0][0], Edge)


@given(architectures(), architectures())
def test_equality_is_by_value(one: CellArchitecture, other: CellArchitecture) -> None:
    assert (one == other) == (one.to_yaml() == other.to_yaml())
    assert len({one, other, one.resized()}) == (1 if one == other else 2)


@pytest.mark.parametrize("name", shipped_names("architectures"))
def test_shipped_architectures_load_by_name_file_and_folder(name: str, tmp_path: Path) -> None:
    architecture = load_architecture(name)
    assert architecture.name in (name, name.replace("_", "-"))
    assert load_architecture(architecture.name) == architecture
    (tmp_path / "architecture.yaml").write_text(architecture.to_yaml())
    (tmp_path / "found.json").write_text(json.dumps(to_dict(architecture)))
    for place in (tmp_path, str(tmp_path), tmp_path / "architecture.yaml", tmp_path / "found.json"):
        assert load_architecture(place) == architecture


def test_arnas_is_the_published_genotype() -> None:
    counts = {cell.kind: cell.operations() for cell in ARNAS.genotype}
    assert sorted(counts["accurate"]) == ["sep_conv_3x3"] * 2 + ["sep_conv_5x5"] * 3 + ["skip_connect"] * 3
    assert sorted(counts["reduce"]) == ["avg_pool_3x3"] * 3 + ["dil_conv_5x5"] * 5
    assert sorted(counts["robust"]) == ["dil_conv_3x3"] * 3 + ["dil_conv_5x5"] * 5
    assert (ARNAS.cells, ARNAS.channels, ARNAS.layout.filters) == (20, 64, (1, 2, 2))


def test_darts_v2_lies_in_the_darts_space_and_arnas_in_the_dsara_space() -> None:
    for space_name, architecture in (("darts", load_architecture("darts_v2")), ("dsara", ARNAS)):
        space = load_space(space_name)
        assert architecture.layout == space.layout
        assert (architecture.cells, architecture.channels) == (space.network.cells, space.network.channels)
        for cell in architecture.genotype:
            assert set(cell.operations()) <= set(space.operations)
            assert [len(node) for node in cell.nodes] == [space.edges_per_node] * space.nodes


def test_resizing_changes_the_size_alone() -> None:
    small = ARNAS.resized(8, 16)
    assert (small.cells, small.channels) == (8, 16)
    assert (small.genotype, small.layout, small.name) == (ARNAS.genotype, ARNAS.layout, ARNAS.name)
    assert small.resized(20, 64) == ARNAS
    for size in ((0, None), (None, 0), (1, None), (10**9, None), (None, 10**9), (-1, None)):
        with pytest.raises(ArchitectureError, match="got"):
            ARNAS.resized(*size)


def broken(way: tuple[Any, ...], value: object) -> str:
    tree: Any = copy.deepcopy(to_dict(ARNAS))
    node = tree
    for key in way[:-1]:
        node = node[key]
    if value is None:
        del node[way[-1]]
    else:
        node[way[-1]] = value
    with pytest.raises(ArchitectureError) as caught:
        architecture_from_text(json.dumps(tree), "broken.json")
    assert "broken.json" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("way", "value", "fragment"),
    [
        (
            ("genotype", 0, "nodes", 1, 0),
            ["conv_9x9", 0],
            "unknown operation: got name 'conv_9x9'; allowed: max_pool_3x3",
        ),
        (("genotype", 0, "nodes", 1, 0), ["skip_connect", 3], "source 3 is not before it; allowed: 0..2"),
        (("genotype", 0, "nodes", 1, 0), ["skip_connect", -1], "at least 0 is needed"),
        (("genotype", 0, "nodes", 1, 0), ["skip_connect"], "genotype.0.nodes.1.0"),
        (("genotype", 0, "nodes", 1, 0), ["skip_connect", True], "an integer is needed"),
        (("genotype", 0, "nodes", 1), [], "genotype.0.nodes.1"),
        (("genotype", 0, "nodes"), [], "genotype.0.nodes"),
        (("genotype", 1, "kind"), "robust", "the layout needs accurate, reduce, robust, once each"),
        (("genotype", 1, "kind"), "Reduce!", "genotype.1.kind"),
        (("genotype", 2), None, "the layout needs accurate, reduce, robust"),
        (("genotype", 0, "concat"), [2, 2], "concat [2, 2] must be distinct nodes, allowed: 2..5"),
        (("genotype", 0, "concat"), [1, 2], "allowed: 2..5"),
        (("genotype", 0, "concat"), [6], "allowed: 2..5"),
        (("genotype", 0, "concat"), [], "concat"),
        (("cells",), 1, "need at least 2 cells"),
        (("cells",), 0, "cells: got 0"),
        (("cells",), 10**9, "at most 1000"),
        (("channels",), 10**9, "allowed: 2.."),
        (("channels",), 1.5, "channels: got 1.5"),
        (("channels",), None, "channels: missing"),
        (("weights",), "x", "unknown key 'weights'"),
        (("type",), "tree", "got type 'tree'; allowed: cell, residual, mlp, nas-bench-201"),
        (("type",), ["cell"], "type: got ['cell']; allowed: cell, residual, mlp"),
        (("type",), None, "type: missing, and it has no default; allowed: cell, residual, mlp"),
        (("type",), "residual", "unknown key 'genotype'"),
        (("schema_version",), 9, "schema_version: got 9"),
        (("name",), '"""; import os', "name: got"),
        (("name",), "../up", "name: got"),
        (("layout", "stages"), ["accurate"], "filters has 3 entries; 1 stages need 1"),
        (("layout", "reductions"), ["2/3", "1/3"], "reductions must increase with depth"),
    ],
)
def test_a_malformed_architecture_is_told_the_rule_it_breaks(
    way: tuple[Any, ...], value: object, fragment: str
) -> None:
    assert fragment in broken(way, value)


@pytest.mark.parametrize("text", ["", "[]", "word", "{", "a: &x 1\nb: *x", "3"])
def test_a_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="text"):
        architecture_from_text(text, "text")


@pytest.mark.parametrize("name", ["arnass", "", "x" * 5000, "a\0b", "~nosuchuser/x"])
def test_an_unknown_name_is_answered_with_the_shipped_ones(name: str) -> None:
    with pytest.raises(ArchitectureError, match="shipped: arnas, darts_v2"):
        load_architecture(name)


@given(st.integers(0, 2**32))
def test_what_a_space_draws_is_a_valid_architecture_of_it(seed: int) -> None:
    drawn = sample(load_space("darts"), seed)
    assert architecture_from_text(drawn.to_yaml(), "drawn") == drawn

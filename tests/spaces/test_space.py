"""Search spaces: the published structure, the rules of the schema, and where the files are."""

import shutil
import tomllib
from pathlib import Path

import pytest

from robust_nas.config import to_yaml
from robust_nas.errors import SearchSpaceError
from robust_nas.spaces import files, load_space, shipped_names

ROOT = Path(__file__).resolve().parents[2]
DARTS_OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


def test_dsara_is_the_published_space() -> None:
    space = load_space("dsara")
    assert space.layout.kinds == ("accurate", "reduce", "robust")
    assert space.layout.filters == (1, 2, 2)
    assert space.operations == DARTS_OPERATIONS
    assert (space.nodes, space.edges_per_node, len(space.edges)) == (4, 2, 14)
    assert (space.search.cells, space.search.channels) == (8, 24)
    assert (space.network.cells, space.network.channels) == (20, 64)


def test_darts_is_two_kinds_and_doubles_twice() -> None:
    space = load_space("darts")
    assert space.layout.kinds == ("normal", "reduce")
    assert space.layout.filters == (1, 2, 4)
    assert space.edges[:5] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("name", shipped_names())
def test_a_space_reads_back_equal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(to_yaml(load_space(name)))
    assert load_space(path) == load_space(str(path)) == load_space(name)


def test_the_ablations_are_changes_of_data() -> None:
    changed = load_space("dsara", {"layout": {"filters": [1, 2, 4], "stages": ["normal"] * 3}})
    assert changed.layout == load_space("darts").layout


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        (
            {"operations": ["skip_connect", "conv_7x7"]},
            "operations.1: got 'conv_7x7'; unknown operation: got name 'conv_7x7'; allowed: max_pool_3x3",
        ),
        ({"operations": ["skip_connect", "skip_connect"]}, "operations names one twice"),
        ({"operations": []}, "operations: got []"),
        ({"nodes": 0}, "nodes: got 0"),
        ({"nodes": 10**6}, "nodes: got 1000000; at most 64 is allowed"),
        ({"edges_per_node": 3}, "edges_per_node is 3; a node has only 2 sources, so write 2 or all"),
        ({"edges": 2}, "unknown key 'edges'; did you mean 'nodes'"),
        ({"layout": {"stages": []}}, "layout.stages"),
        ({"layout": {"filters": [1, 2]}}, "filters has 2 entries; 3 stages need 3"),
        ({"layout": {"filters": [1, 0, 2]}}, "layout.filters.1: got 0"),
        ({"layout": {"reductions": ["1/3"]}}, "reductions has 1 entries; 3 stages need 2"),
        ({"layout": {"reductions": ["1/3", "1/3"]}}, "reductions must increase with depth"),
        ({"layout": {"reductions": ["1/3", "4/3"]}}, "layout.reductions.1: got '4/3'"),
        ({"layout": {"reduction_cells": ["reduce"]}}, "reduction_cells has 1 entries"),
        ({"layout": {"reduction_cells": ["robust", "robust"]}}, "both a stage's cell and a reduction cell"),
        ({"layout": {"stages": ["Accurate", "a", "b"]}}, "layout.stages.0: got 'Accurate'"),
        ({"search": {"cells": 1}}, "cells: got 1; reductions at 1/3, 2/3 need at least 2 cells"),
        ({"network": {"channels": -1}}, "network.channels: got -1"),
        ({"name": "a/b"}, "name: got 'a/b'"),
        ({"type": "graph"}, "type: got 'graph'"),
    ],
)
def test_a_malformed_space_is_told_the_rule_it_breaks(changes: dict[str, object], fragment: str) -> None:
    if "edges" in changes:
        fragment = "unknown key 'edges'"
    with pytest.raises(SearchSpaceError) as caught:
        load_space("dsara", changes)
    assert fragment in str(caught.value)
    assert "dsara.yaml" in str(caught.value)


def test_an_unknown_space_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(
        SearchSpaceError,
        match="'dartz' is neither a shipped name nor a file; shipped: darts, dsara, nas_bench_201",
    ):
        load_space("dartz")


def test_the_wheel_carries_the_spaces_where_the_package_looks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"search_spaces": "robust_nas/search_spaces"}
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "robust_nas")
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")  # a checkout
    assert files.folder() == tmp_path / "search_spaces"
    shutil.copytree(ROOT / "search_spaces", tmp_path / "robust_nas" / "search_spaces")  # an installed wheel
    assert files.folder() == tmp_path / "robust_nas" / "search_spaces"
    assert load_space("dsara").name == "dsara"

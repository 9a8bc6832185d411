"""Residual architectures: names of wide residual networks, exact round trips, presets, every rule."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space_counts import Shape, residual, torch_count
from spaces_strategies import residual_architectures

from robust_nas.config import to_dict
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.spaces import (
    Cost,
    ResidualArchitecture,
    architecture_from_text,
    count,
    load_architecture,
)
from robust_nas.spaces.residual import BLOCKS

WRN = to_dict(ResidualArchitecture(name="mine", depths=(2, 1, 1), widths=(16, 32, 64)))


def test_wrn_34_r_ships_with_its_published_widths() -> None:
    shipped = load_architecture("wrn-34-r")
    assert shipped == load_architecture("wrn_34_r")
    assert shipped == residual((5, 5, 5), (20, 20, 8)).model_copy(update={"name": "wrn-34-r"})
    assert count(shipped) == Cost(68_116_698, 19_132_765_184) == torch_count(shipped, (3, 32, 32), 10)


@settings(max_examples=30)
@given(residual_architectures(), st.tuples(*[st.integers(1, 33)] * 3), st.integers(1, 5))
def test_any_network_on_any_input_counts_as_torch_counts(
    architecture: ResidualArchitecture, shape: Shape, classes: int
) -> None:
    assert count(architecture, shape, classes) == torch_count(architecture, shape, classes)


def test_an_input_without_pixels_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="positive numbers"):
        count(load_architecture("wrn-10-1"), (3, 0, 32))


@given(st.integers(1, 300), st.integers(1, 1000))
def test_a_name_means_three_stages_of_n_blocks_with_widths_16k_32k_64k(n: int, k: int) -> None:
    name = f"wrn-{6 * n + 4}-{k}"
    found = ResidualArchitecture.named(name)
    assert found == ResidualArchitecture(
        name=name, stem=16, depths=(n, n, n), widths=(16 * k, 32 * k, 64 * k), strides=(1, 2, 2)
    )
    assert load_architecture(name.upper()) == found


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("wrn-27-2", "'wrn-27-2': depth 27 is not 6n + 4 with n >= 1; nearest: 22 and 28"),
        ("wrn-29-2", "nearest: 28 and 34"),
        ("wrn-4-1", "depth 4 is not 6n + 4 with n >= 1; nearest: 10"),
        ("wrn-0-1", "nearest: 10"),
        ("wrn-28-0", "'wrn-28-0': the widening factor is 0; at least 1 is needed"),
        ("wrn-6004-1", "'wrn-6004-1': depths: got 3000 blocks; at most 1000 are allowed"),
        ("wrn-10-100000", "'wrn-10-100000': widths.0: got 1600000"),
        ("wrn-28", "'wrn-28' is neither a shipped name nor a file"),
        ("wrn-28-x", "or wrn-D-k with D = 6n + 4, such as wrn-28-10"),
        ("wrn-28--1", "or wrn-D-k"),
        ("wrn-²8-1", "or wrn-D-k"),
        ("wrn-" + "9" * 5000 + "-1", "or wrn-D-k"),
    ],
)
def test_a_name_that_means_no_network_is_told_what_would(name: str, fragment: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        load_architecture(name)
    assert fragment in str(caught.value)


@given(residual_architectures())
def test_yaml_and_json_read_back_the_equal_value_with_the_equal_hash(
    architecture: ResidualArchitecture,
) -> None:
    for text in (architecture.to_yaml(), json.dumps(to_dict(architecture)), architecture.model_dump_json()):
        again = architecture_from_text(text, "text")
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert isinstance(again, ResidualArchitecture)
        assert again.to_yaml() == architecture.to_yaml()


def test_files_and_folders_of_both_families_are_told_apart_by_their_type(tmp_path: Path) -> None:
    for name in ("wrn-16-4", "arnas"):
        architecture = load_architecture(name)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "architecture.yaml").write_text(architecture.to_yaml())
        (folder / "found.json").write_text(json.dumps(to_dict(architecture)))
        for place in (folder, str(folder), folder / "architecture.yaml", folder / "found.json"):
            assert load_architecture(place) == architecture


PRESETS = {  # blocks and widening factors of each stage
    "a1": ((14, 14, 7), (5, 7, 3)),
    "a2": ((17, 17, 8), (7, 9, 4)),
    "a3": ((22, 22, 11), (8, 11, 5)),
    "a4": ((27, 28, 13), (10, 14, 6)),
}


@pytest.mark.parametrize("size", PRESETS)
def test_the_networks_of_robustscaling_ship_with_both_blocks(size: str) -> None:
    plain = residual(*PRESETS[size])
    assert load_architecture(f"wrn-{size}") == plain.model_copy(update={"name": f"wrn-{size}"})
    assert load_architecture(f"rrn-{size}") == ResidualArchitecture(
        **{**to_dict(plain), "name": f"rrn-{size}", "block": "robust-res"}
    )


def test_a_block_brings_its_usual_numbers_and_no_other_is_written() -> None:
    made = {block: ResidualArchitecture(name="x", block=block, depths=(1,), widths=(16,)) for block in BLOCKS}
    everything = {key for numbers in BLOCKS.values() for key in numbers}
    for block, architecture in made.items():
        assert {key: value for key, value in to_dict(architecture).items() if key in everything} == BLOCKS[
            block
        ]
    robust = made["robust-res"]
    assert (robust.cardinality, robust.scales, robust.base_width, robust.se_reduction) == (4, 8, 10, 64)
    nulls = {**to_dict(made["basic"]), **dict.fromkeys(everything), "block": "robust-res"}
    assert ResidualArchitecture(**nulls) == robust  # null is as good as left out


def test_strides_are_1_2_2_unless_given() -> None:
    for stages in range(1, 5):
        found = ResidualArchitecture(name="x", depths=(1,) * stages, widths=(4,) * stages)
        assert found.strides == (1, 2, 2, 2)[:stages]
    text = "{type: residual, name: x, depths: [1, 1], widths: [4, 4]}"
    assert "strides: [1, 2]" in architecture_from_text(text, "text").to_yaml()
    assert ResidualArchitecture(name="x", depths=(1,), widths=(4,), strides=(3,)).strides == (3,)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"widths": [8]}, "widths: got 8; with base_width 10 a robust-res block needs at least 16"),
        ({"widths": [22], "base_width": 7}, "with base_width 7 a robust-res block needs at least 23"),
        (
            {"widths": [22], "se_reduction": 89},
            "se_reduction: got 89; a block of width 22 has 88 channels, so at most 88",
        ),
        ({"scales": 0}, "scales: got 0"),
        ({"cardinality": 2000}, "cardinality: got 2000"),
        ({"preactivated": "maybe"}, "preactivated: got 'maybe'"),
        (
            {"block": "bottleneck", "se_reduction": 4},
            "a bottleneck block has none: leave it out, or choose robust-res",
        ),
    ],
)
def test_a_block_that_cannot_be_built_is_told_what_can(change: dict[str, Any], fragment: str) -> None:
    tree = {"name": "x", "block": "robust-res", "depths": [1], "widths": [16], **change}
    with pytest.raises(ConfigError) as caught:
        ResidualArchitecture(**tree)
    assert fragment in str(caught.value)


def test_the_narrowest_robust_res_blocks_build() -> None:
    for change in ({"widths": (16,)}, {"widths": (23,), "base_width": 7, "se_reduction": 92}):
        tree = {"name": "x", "block": "robust-res", "depths": (1,), **change}
        architecture = ResidualArchitecture(**tree)
        assert count(architecture, (1, 8, 8), 3) == torch_count(architecture, (1, 8, 8), 3)


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        ("depths", [2, 1], "widths has 3 entries; 2 depths need 2"),
        ("strides", [1, 2], "strides has 2 entries; 3 depths need 3"),
        ("strides", [], "strides has 0 entries; 3 depths need 3"),
        ("strides", [1, 0, 2], "strides.1: got 0"),
        ("strides", [1, 4, 2], "strides.1: got 4; at most 3 is allowed"),
        ("depths", [], "depths: got []"),
        ("depths", 5, "depths: got 5"),
        ("depths", [1, 1, 999], "depths: got 1001 blocks; at most 1000 are allowed"),
        ("depths", [1, True, 1], "depths.1: got True; an integer is needed"),
        ("depths", None, "depths: missing"),
        ("widths", [16, 32, 1 << 21], "widths.2: got 2097152; at most 1048576 is allowed"),
        ("widths", [16, -1, 32], "widths.1: got -1"),
        ("stem", 0, "stem: got 0"),
        ("stem", 1 << 21, "stem: got 2097152"),
        ("block", "dense", "block: got 'dense'; allowed: basic, bottleneck, robust-res"),
        ("block", ["basic"], "block: got ['basic']; allowed: basic"),
        ("scales", 2, "scales: got 2; a basic block has none: leave it out, or choose robust-res"),
        ("expansion", 4, "a basic block has none: leave it out, or choose bottleneck or robust-res"),
        (
            "activation",
            "tanh",
            "activation: got 'tanh'; unknown activation: got name 'tanh'; allowed: relu, silu, gelu, softplus",
        ),
        (
            "initialisation",
            "ntk",
            "initialisation: got 'ntk'; allowed: he-fan-out, he-fan-in, lecun",
        ),
        ("schema_version", 2, "schema_version: got 2"),
        ("name", "../up", "name: got '../up'"),
        ("width", 3, "unknown key 'width'; did you mean 'widths'?"),
        ("type", None, "type: missing, and it has no default; allowed: cell, residual, mlp"),
        ("type", "resnet", "got type 'resnet'; allowed: cell, residual, mlp"),
        ("type", "cell", "genotype: missing"),
    ],
)
def test_a_malformed_architecture_is_told_the_rule_it_breaks(key: str, value: Any, fragment: str) -> None:
    tree = {name: old for name, old in WRN.items() if name != key}
    if value is not None:
        tree[key] = value
    with pytest.raises(ArchitectureError) as caught:
        architecture_from_text(json.dumps(tree), "broken.json")
    assert fragment in str(caught.value)
    assert str(caught.value).startswith("broken.json")


def test_a_value_made_in_python_is_checked_as_a_file_is() -> None:
    with pytest.raises(ConfigError, match="strides has 1 entries; 2 depths need 2"):
        ResidualArchitecture(name="x", depths=(1, 1), widths=(4, 4), strides=(1,))

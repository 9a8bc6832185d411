"""Canonical names: the literature's where it has one, valid, and different where architectures differ."""

import re
from pathlib import Path

import pytest
from extending import example
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces_strategies import architectures, mlp_architectures, residual_architectures

from robust_nas.spaces import Architecture, MLPArchitecture, ResidualArchitecture, load_architecture
from robust_nas.spaces.naming import canonical_name
from robust_nas.user_code import own_config

PLAIN = {"name": "mine", "depths": (2, 2, 2), "widths": (16, 32, 26)}
NB201 = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
CURVED = example("curved.py")
ANY = st.one_of(architectures(), residual_architectures(), mlp_architectures())


@pytest.mark.parametrize("name", ["wrn-10-2", "wrn-34-10", "wrn-34-r", "wrn-a1", "rrn-a3", "arnas"])
def test_the_literature_names_its_own(name: str) -> None:
    architecture = load_architecture(name)
    assert (
        canonical_name(architecture.model_copy(update={"name": "other" if name != "arnas" else name})) == name
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "d2-2-2.w16-32-26"),
        ({"widths": (32, 64, 128), "activation": "silu"}, "wrn-16-2.silu"),
        ({"strides": (1, 1, 2), "stem": 8}, "d2-2-2.w16-32-26.stem8.strides1-1-2"),
        ({"block": "bottleneck", "expansion": 2}, "d2-2-2.w16-32-26.bottleneck.expansion2"),
        ({"block": "bottleneck", "initialisation": "lecun"}, "d2-2-2.w16-32-26.bottleneck.lecun"),
    ],
)
def test_names_of_residual_networks(changes: dict[str, object], name: str) -> None:
    assert canonical_name(ResidualArchitecture(**{**PLAIN, **changes})) == name


def test_names_of_other_families() -> None:
    mlp = MLPArchitecture(name="mine", depth=3, width=64, initialisation="lecun")
    assert canonical_name(mlp) == "mlp-d3-w64.lecun"
    small = load_architecture("arnas").resized(8, 16)  # type: ignore[union-attr] # cells
    assert canonical_name(small) == "arnas.c8.ch16"
    assert canonical_name(small.model_copy(update={"name": "arnas.c8.ch16"})) == "arnas.c8.ch16"
    for known in (small, load_architecture(NB201)):
        other = known.with_options(activation="sparta")
        assert canonical_name(other) == f"{canonical_name(known)}.sparta"
        assert "activation" not in known.to_yaml()  # older files, hashes and names stay
        assert other != known


@settings(max_examples=50)
@given(ANY)
def test_names_are_valid_and_stay(architecture: Architecture) -> None:
    name = canonical_name(architecture)
    assert len(name) <= 200
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name)
    assert canonical_name(architecture.model_copy(update={"name": name})) == name


@settings(max_examples=150)
@given(ANY, ANY)
def test_names_differ_where_architectures_do(one: Architecture, other: Architecture) -> None:
    same = one.model_copy(update={"name": "x"}) == other.model_copy(update={"name": "x"})
    renamed = other.model_copy(update={"name": one.name})  # the names are no help
    assert (canonical_name(one) == canonical_name(renamed)) == same


@given(residual_architectures(), st.data())
def test_one_changed_number_changes_the_name(one: ResidualArchitecture, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["stem", "depths", "widths"]))
    value = getattr(one, key)
    changed = value + 1 if key == "stem" else (value[0] + 1, *value[1:])
    assert canonical_name(one.model_copy(update={key: changed})) != canonical_name(one)


def test_a_class_of_a_file_is_named_the_same_wherever_the_file_lies(tmp_path: Path) -> None:
    names = []
    for number, text in enumerate((CURVED, CURVED, CURVED + "# another\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "curved.py").write_text(text)
        with own_config(folder):
            mlp = MLPArchitecture(name="mine", depth=3, width=64, activation="curved.py:Curved")
        assert str(folder) in mlp.activation
        names.append(canonical_name(mlp))
        assert mlp.model_copy(update={"name": names[-1]}).with_options().name == names[-1]
    assert names[0] == names[1] != names[2]
    assert re.fullmatch(r"mlp-d3-w64\.Curved-h[0-9a-f]{8}", names[0])


def test_long_names_are_cut_and_still_differ() -> None:
    long = [
        ResidualArchitecture(name="x", depths=(1,) * 90, widths=(16,) * 89 + (last,), strides=(1,) * 90)
        for last in (16, 17)
    ]
    names = {canonical_name(architecture) for architecture in long}
    assert len(names) == 2
    assert max(map(len, names)) <= 200

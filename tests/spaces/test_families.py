"""Every registered family keeps the protocol: round trips, costs, names, seeds; and a plugin is one of them."""

import json
import re
import sys

import pytest
import torch
from family_cases import FAMILY_CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins import install
from torch.utils.flop_counter import FlopCounterMode

from robust_nas.config import Options, check, to_dict
from robust_nas.errors import ArchitectureError, CheckpointError, CodeRefusedError, ConfigError
from robust_nas.nets import (
    ModelDescription,
    build_network,
    inference_state,
    load_model,
    read_model,
    save_model,
)
from robust_nas.nets.build import seeded
from robust_nas.registry import plugins_in
from robust_nas.spaces import (
    FAMILIES,
    AnyArchitecture,
    Cost,
    MLPArchitecture,
    architecture_from_text,
    count,
    has_cells,
    load_architecture,
    parts,
)
from robust_nas.spaces.kernel_regression import KernelRegressionArchitecture
from robust_nas.spaces.naming import canonical_name
from robust_nas.user_code import allow_code

SHAPES = st.tuples(*[st.integers(1, 17)] * 3)
every_family = pytest.mark.parametrize("family", FAMILIES.names())


class Holder(Options):
    """Options with an architecture in them."""

    architecture: AnyArchitecture


def torch_cost(architecture, shape, classes):
    """Return parameters and half the FLOPs that torch counts on the meta device for one answer."""
    with torch.device("meta"):
        network = build_network(architecture, input_shape=shape, classes=classes).eval()
        images = torch.empty(1, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(images).shape == (1, classes)
    passes = getattr(network, "inference_samples", None) or 1
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, passes * counter.get_total_flops() // 2)


def test_every_family_is_in_the_suite():
    assert set(FAMILY_CASES) == set(FAMILIES.names())


@every_family
@settings(max_examples=15)
@given(data=st.data())
def test_yaml_json_and_fields_read_back_the_equal_value(family, data):
    architecture = data.draw(FAMILY_CASES[family])
    assert architecture.type == family == to_dict(architecture)["type"]
    for text in (architecture.to_yaml(), json.dumps(to_dict(architecture)), architecture.model_dump_json()):
        again = architecture_from_text(text, "text")
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert again.to_yaml() == architecture.to_yaml()
    holder = Holder(architecture=architecture)
    assert to_dict(holder) == {"architecture": to_dict(architecture)}
    assert check(Holder, to_dict(holder), "holder") == holder
    with pytest.raises(ValueError, match=r"frozen"):
        architecture.name = "other"


@every_family
@settings(max_examples=5)
@given(data=st.data(), shape=SHAPES, classes=st.integers(1, 5))
def test_the_cost_is_torch_s(family, data, shape, classes):
    architecture = data.draw(FAMILY_CASES[family])
    cost = count(architecture, shape, classes)
    assert cost == torch_cost(architecture, shape, classes)
    found = parts(architecture, shape, classes)
    assert sum(part.cost.params for part in found) == cost.params
    assert sum(part.cost.macs for part in found) == cost.macs
    assert [part.name for part in found if part.name.startswith("stage")] == [
        f"stage {number}" for number in range(1, 1 + sum(part.name.startswith("stage") for part in found))
    ]
    assert {part.name for part in found if not part.name.startswith("stage")} <= {"stem", "head"}


@every_family
@settings(max_examples=25)
@given(data=st.data())
def test_canonical_names_differ_where_contents_differ(family, data):
    one, other = data.draw(FAMILY_CASES[family]), data.draw(FAMILY_CASES[family])
    renamed = one.model_copy(update={"name": "renamed"})
    assert one.nameless() == renamed.nameless()
    if not has_cells(one):  # a cell network's own name is part of it
        assert canonical_name(one) == canonical_name(renamed)
        other = other.model_copy(update={"name": one.name})
    if one.nameless() != other.nameless():
        assert canonical_name(one) != canonical_name(other)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", canonical_name(one))


@every_family
@settings(max_examples=5)
@given(data=st.data())
def test_a_network_is_built_from_its_seed_alone(family, data):
    architecture = data.draw(FAMILY_CASES[family])
    before = torch.get_rng_state()
    one, same, other = (
        build_network(architecture, input_shape=(1, 8, 8), classes=3, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert one.keys() == same.keys() == other.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@every_family
@settings(max_examples=5)
@given(data=st.data())
def test_a_network_says_its_stages(family, data):
    architecture = data.draw(FAMILY_CASES[family])
    network = build_network(architecture, input_shape=(2, 9, 8), classes=3).eval()
    x = torch.rand(2, 2, 9, 8)
    with torch.no_grad(), seeded(0):  # a random network draws the same twice
        outputs = network.staged(x)
    with torch.no_grad(), seeded(0):
        assert torch.equal(outputs[-1], network(x))
    assert len(outputs) == sum(part.name != "stem" for part in parts(architecture, (2, 9, 8), 3))


@every_family
@settings(max_examples=3)
@given(data=st.data())
def test_what_studies_ask_is_answered(family, data):
    architecture = data.draw(FAMILY_CASES[family])
    assert architecture.total_depth >= 1
    assert architecture.total_width >= 1
    factors = architecture.factors()
    assert (factors["depth"], factors["width"]) == (architecture.total_depth, architecture.total_width)
    assert architecture.describe()
    sizes = architecture.stage_sizes
    if sizes is not None:
        assert {"depths", "widths"} <= type(architecture).model_fields.keys()
        assert (sizes.depths, sizes.widths) == (architecture.depths, architecture.widths)
    assert architecture.changeable([]) == to_dict(architecture)


@every_family
def test_what_a_family_does_not_support_is_refused(family):
    architecture = EXAMPLES[family]
    assert architecture.resized() == architecture
    if not architecture.has_cells:
        with pytest.raises(ArchitectureError, match=rf"got 3 cells; it is {architecture.called}"):
            architecture.resized(cells=3)
        with pytest.raises(ArchitectureError, match=r"affine=False; .* is built with"):
            build_network(architecture, input_shape=(1, 8, 8), affine=False)
    if not architecture.supports_auxiliary_head:
        with pytest.raises(ArchitectureError, match=r"auxiliary=True"):
            build_network(architecture, auxiliary=True)
        with pytest.raises(ArchitectureError, match=r"has no auxiliary head|at least 4x4"):
            architecture.auxiliary_head((3, 2, 2))


EXAMPLES = {
    "cell": load_architecture("arnas").resized(4, 4),
    "residual": load_architecture("wrn-10-1"),
    "mlp": MLPArchitecture(name="x", depth=2, width=4),
    "nas-bench-201": load_architecture("|skip_connect~0|+|none~0|nor_conv_3x3~1|").resized(3, 4),
    "ensemble": load_architecture("ensemble-2.wrn-10-1"),
    "mean-field": load_architecture("mean-field.wrn-10-1"),
    "kernel-regression": KernelRegressionArchitecture(name="x", support=5),
}


def test_every_family_has_an_example():
    assert set(EXAMPLES) == set(FAMILIES.names())


PLUGIN = '''
"""A linear classifier as a family of architectures."""

import math
from typing import Literal

from robust_nas.operations.cost import Part, linear
from robust_nas.spaces import Architecture


class Linear(Architecture):
    called = "a linear classifier"
    scale: float = 1.0

    def describe(self):
        return f"scaled by {self.scale}"

    def arguments(self, input_shape):
        return {"inputs": math.prod(input_shape), "scale": self.scale}

    def parts(self, input_shape, classes):
        yield Part("head", linear(math.prod(input_shape), classes))

    @classmethod
    def network_class(cls):
        from torch import nn

        from robust_nas.layers.normalise import Normalise

        class Network(nn.Module):
            def __init__(self, inputs, scale, classes, mean, std):
                super().__init__()
                self.normalise, self.scale = Normalise(mean, std), scale
                self.classifier = nn.Linear(inputs, classes)

            def forward(self, x):
                return self.classifier(self.scale * self.normalise(x).flatten(1))

        return Network
'''


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "linear_family.py"
    file.write_text(PLUGIN)
    assert len(PLUGIN.splitlines()) < 45
    return file


def test_a_family_of_a_user_s_file_is_counted_built_saved_and_loaded(plugin, tmp_path):
    text = f"{{type: '{plugin}:Linear', name: mine, scale: 2.0}}"
    with pytest.raises(CodeRefusedError, match=r"linear_family.py"):
        architecture_from_text(text, "text")
    with allow_code([plugin]):
        architecture = architecture_from_text(text, "text")
        assert architecture == architecture_from_text(architecture.to_yaml(), "again")
        assert architecture.type == f"{plugin}:Linear"
        assert count(architecture, (1, 8, 8), 3) == torch_cost(architecture, (1, 8, 8), 3) == Cost(195, 192)
        other = architecture.model_copy(update={"scale": 3.0})
        assert canonical_name(architecture) != canonical_name(other)
        assert canonical_name(architecture).startswith("linear.h")
        network = build_network(architecture, input_shape=(1, 8, 8), classes=3).eval()
        description = ModelDescription(
            input_shape=(1, 8, 8), class_names=("a", "b", "c"), mean=(0.0,), std=(1.0,)
        )
        save_model(tmp_path / "model", architecture, inference_state(network), description)
        x = torch.rand(2, 1, 8, 8)
        with torch.no_grad():
            assert torch.equal(load_model(tmp_path / "model")(x), network(x))
        assert read_model(tmp_path / "model").architecture == architecture
        assert Holder(architecture={"type": f"{plugin}:Linear", "name": "mine"}).architecture.scale == 1.0


NAMED = """
    named_as = "linear-S, such as linear-2"

    @classmethod
    def named(cls, text):
        head, _, scale = text.partition("-")
        return cls(name=text, scale=float(scale)) if head == "linear" else None
"""


def test_a_family_of_an_installed_package_gives_names_and_is_imported_only_for_them(tmp_path, monkeypatch):
    source = PLUGIN.replace("    def describe", NAMED + "\n    def describe", 1)
    (tmp_path / "linear_package.py").write_text(source)
    install(monkeypatch, tmp_path, FAMILIES, "linear", "linear_package:Linear")
    monkeypatch.delitem(sys.modules, "linear_package", raising=False)
    assert load_architecture("wrn-10-1").type == "residual"
    assert load_architecture("arnas").type == "cell"
    assert "linear_package" not in sys.modules
    architecture = load_architecture("linear-3")
    assert (architecture.type, architecture.name, architecture.scale) == ("linear", "linear-3", 3.0)
    assert architecture_from_text(architecture.to_yaml(), "again") == architecture
    assert plugins_in(architecture) == {"linear": "linear_package:Linear of linear_linear_package 1.0"}
    with pytest.raises(ArchitectureError, match=r"'nothing' is neither .*; or linear-S, such as linear-2$"):
        load_architecture("nothing")


def test_a_broken_family_of_an_installed_package_hides_no_other(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('broken')")
    install(monkeypatch, tmp_path, FAMILIES, "broken", "broken_package:Broken")
    with pytest.raises(ArchitectureError, match=r"'nothing' is neither a shipped name nor a file; shipped: "):
        load_architecture("nothing")
    with pytest.raises(ConfigError, match=r"its plugin broken_package:Broken cannot be imported: broken"):
        architecture_from_text("{type: broken, name: x}", "text")


def test_a_received_folder_that_names_a_family_s_code_is_refused(plugin, tmp_path):
    with allow_code([plugin]):
        architecture = architecture_from_text(f"{{type: '{plugin}:Linear', name: mine}}", "text")
        network = build_network(architecture, input_shape=(1, 2, 2), classes=2)
    description = ModelDescription(input_shape=(1, 2, 2), class_names=("a", "b"), mean=(0.0,), std=(1.0,))
    save_model(tmp_path / "model", architecture, inference_state(network), description)
    moved = tmp_path / "elsewhere" / "linear_family.py"
    yaml = (tmp_path / "model" / "architecture.yaml").read_text().replace(str(plugin), str(moved))
    (tmp_path / "model" / "architecture.yaml").write_text(yaml)
    with pytest.raises(CodeRefusedError, match=r"--allow-code linear_family.py"):
        read_model(tmp_path / "model")
    with allow_code([plugin]):
        assert read_model(tmp_path / "model").architecture.name == "mine"


@pytest.mark.parametrize(
    ("tree", "fragment"),
    [
        ({"type": "tree", "name": "x"}, "architecture: got type 'tree'; allowed: cell, residual, mlp"),
        (
            {"name": "x"},
            "architecture: 'type' is missing among 'name'; allowed: cell, residual, mlp, nas-bench-201",
        ),
        ({"type": "mlp", "name": "x", "depth": 0, "width": 3}, "architecture.depth: got 0"),
        (
            {"type": "mlp", "name": "x", "width": 3, "height": 3},
            "architecture.height: unknown key 'height'; allowed: schema_version, type",
        ),
        (7, "architecture: got 7"),
    ],
)
def test_a_mistake_in_an_architecture_of_a_config_is_placed(tree, fragment):
    with pytest.raises(ConfigError) as caught:
        check(Holder, {"architecture": tree}, "file")
    assert fragment in str(caught.value)


def test_a_model_of_an_unknown_family_names_the_known_ones(tmp_path):
    architecture = EXAMPLES["mlp"]
    network = build_network(architecture, input_shape=(1, 2, 2), classes=2)
    description = ModelDescription(input_shape=(1, 2, 2), class_names=("a", "b"), mean=(0.0,), std=(1.0,))
    save_model(tmp_path, architecture, inference_state(network), description)
    path = tmp_path / "architecture.yaml"
    path.write_text(path.read_text().replace("type: mlp", "type: absent"))
    with pytest.raises(CheckpointError, match=r"got type 'absent'; allowed: cell, .* is not installed"):
        read_model(tmp_path)

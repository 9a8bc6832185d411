"""An operation and an activation of a user's own: searched, fused, folded, derived, counted and exported."""

import subprocess
import sys

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import yaml
from extending import example
from operation_cases import GATED
from plugins import install

from robust_nas.attacks import FGSM
from robust_nas.attacks.folding import folded
from robust_nas.config import to_dict
from robust_nas.errors import CodeRefusedError, ConfigError, RunError, SearchSpaceError
from robust_nas.export import export_source
from robust_nas.export.onnx import onnx_bytes
from robust_nas.export.program import load_program, program_bytes
from robust_nas.nets import Model, ModelDescription, Supernet, build_network, channels_last
from robust_nas.nets.cost import measured_cost
from robust_nas.nets.folded import FoldedSupernet
from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture, architecture_from_text, count, load_space
from robust_nas.user_code import own_config

SHAPE = (3, 8, 8)

CURVED = example("curved.py")


@pytest.fixture
def entry_point(tmp_path, monkeypatch):
    """Install a package of one module, with one entry point."""

    def write_and_install(registry, module, text, name, attribute):
        (tmp_path / f"{module}.py").write_text(text)
        install(monkeypatch, tmp_path, registry, name, f"{module}:{attribute}")

    return write_and_install


@pytest.fixture(params=["file", "entry point"])
def gated(request, tmp_path, entry_point):
    """The name of the operation, and its search space."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "gated.py").write_text(GATED)
    name = "gated.py:Gated"
    if request.param == "entry point":
        entry_point(OPERATIONS, "gated_package", GATED, "gated", "Gated")
        name = "gated"
    tree = to_dict(load_space("dsara")) | {
        "name": "own",
        "nodes": 1,
        "operations": ["skip_connect", name],
        "network": {"cells": 4, "channels": 4},
    }
    path = tmp_path / "own" / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    with own_config(path.parent):
        space = load_space(path)
    return space.operations[1], space


def searched(space):
    """A supernet after a few adversarial steps on weights and alphas, in which the own operation wins."""
    supernet = channels_last(Supernet(space, 4, channels=4, cells=4)).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(supernet.parameters(), 0.05)
    for _ in range(3):
        x, labels = torch.rand(4, *SHAPE, generator=generator), torch.arange(4)
        adversarial = FGSM(eps=0.05, fold=False).craft(supernet.folded(), x, labels, generator)
        optimiser.zero_grad()
        F.cross_entropy(supernet(adversarial), labels).backward()
        optimiser.step()
    assert isinstance(folded(supernet.eval(), x).network, FoldedSupernet)
    assert all(alpha.grad.any() for alpha in supernet.alphas.values())
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha[:, 1] += 1
    return supernet


def model(architecture, classes=4):
    network = build_network(architecture, input_shape=SHAPE, classes=classes, seed=1)
    with torch.no_grad():
        network.train()(torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)))
    description = ModelDescription(
        input_shape=SHAPE, class_names=tuple("abcd"), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    return Model(network.eval(), architecture, description)


def assert_graphs(made):
    """Graphs are traced, and know no names: a method that is found in a file stands for all."""
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        expected = made.network(x)
    session = onnxruntime.InferenceSession(
        onnx_bytes(made.network, SHAPE), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
    program, _ = load_program(program_bytes(made.network, SHAPE))
    torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)


def assert_source(made, folder):
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        expected = made.network(x)
    export_source(made, folder)
    torch.save(x, folder / "x.pt")
    code = (
        "import sys, torch, network\n"
        "torch.save(network.load()(torch.load('x.pt')), 'y.pt')\n"
        "assert 'robust_nas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    assert torch.equal(torch.load(folder / "y.pt"), expected)


def test_an_operation_is_searched_folded_derived_counted_and_exported(gated, tmp_path):
    name, space = gated
    supernet = searched(space)
    derived = supernet.derive()
    assert {edge.operation for cell in derived.genotype for node in cell.nodes for edge in node} == {name}
    assert architecture_from_text(derived.to_yaml(), "test") == derived  # by its name of now, from anywhere
    made = model(derived)
    assert count(derived, SHAPE, 4) == measured_cost(made.network, SHAPE)
    assert_source(made, tmp_path / "export")
    if ".py:" in name:
        assert_graphs(made)


def test_an_operation_without_a_layer_is_exported_but_not_as_source(tmp_path):
    (tmp_path / "gated.py").write_text(GATED)
    with own_config(tmp_path):
        space = load_space(
            "dsara", {"nodes": 1, "operations": ["gated.py:Unnamed"], "network": {"cells": 4, "channels": 4}}
        )
    made = model(
        searched(
            load_space("dsara", to_dict(space) | {"operations": ["skip_connect", space.operations[0]]})
        ).derive()
    )
    assert onnx_bytes(made.network, SHAPE)
    with pytest.raises(
        ConfigError, match=r"operation '.*gated.py:Unnamed': builds its module by code of its own"
    ):
        export_source(made, tmp_path / "export")


def test_a_text_that_does_not_run_alone_is_refused_by_name(tmp_path):
    (tmp_path / "lost.py").write_text(
        GATED.replace(
            "def scaled(x):", "from robust_nas.layers.depthwise import subsample as scaled\n\n\ndef other(x):"
        )
    )
    with own_config(tmp_path):
        name = OPERATIONS.get("lost.py:Gated").model_fields["name"].default
    space = load_space("dsara", {"nodes": 1, "operations": [name], "network": {"cells": 4, "channels": 4}})
    genotype = {kind: [[(name, 0), (name, 1)]] for kind in space.layout.kinds}
    made = model(space.architecture("lost", genotype))
    with pytest.raises(RunError, match=r"lost.py:Gated.* does not run alone \(NameError"):
        export_source(made, tmp_path / "export")


@pytest.mark.parametrize(
    ("architecture", "way", "exported"),
    [
        ({"block": "basic", "depths": (1, 1), "widths": (4, 6)}, "file", True),
        ({"block": "bottleneck", "depths": (1, 1), "widths": (4, 6)}, "file", False),
        ({"block": "robust-res", "depths": (1,), "widths": (16,), "se_reduction": 8}, "file", False),
        ({"depth": 2, "width": 6}, "file", False),
        ({"depth": 2, "width": 6}, "entry point", True),
    ],
)
def test_an_activation_with_parameters_is_built_counted_folded_and_exported(
    architecture, way, exported, tmp_path, entry_point
):
    (tmp_path / "curved.py").write_text(CURVED)
    activation = "curved.py:Curved"
    if way == "entry point":
        entry_point(ACTIVATIONS, "curved_package", CURVED, "curved", "Curved")
        activation = "curved"
    family = MLPArchitecture if "width" in architecture else ResidualArchitecture
    with own_config(tmp_path):
        found = family(name="own", activation=activation, **architecture)
    made = model(found)
    assert count(found, SHAPE, 4) == measured_cost(made.network, SHAPE)
    x = torch.rand(2, *SHAPE)
    copied = folded(made.network, x)
    assert copied.model_form == "folded"
    torch.testing.assert_close(copied.network(x), made.network(x), rtol=1e-4, atol=1e-5)
    loss = F.cross_entropy(made.network.train()(torch.rand(4, *SHAPE)), torch.arange(4))
    betas = [parameter for name, parameter in made.network.named_parameters() if name.endswith("beta")]
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, betas))
    if exported:
        assert_graphs(model(found))  # one has maps, the other vectors
        assert_source(model(found), tmp_path / "export")


def test_code_that_nobody_allowed_is_refused(tmp_path):
    (tmp_path / "gated.py").write_text(GATED)
    with pytest.raises(CodeRefusedError, match="is code, which runs only where"):
        load_space("dsara", {"operations": [f"{tmp_path}/gated.py:Gated"]})
    with pytest.raises(CodeRefusedError):
        MLPArchitecture(name="x", depth=1, width=2, activation=f"{tmp_path}/gated.py:Gated")
    with (
        own_config(tmp_path),
        pytest.raises(SearchSpaceError, match=r"operations.0: .* a subclass of .*Operation is needed"),
    ):
        load_space("dsara", {"operations": ["gated.py:Gate"]})

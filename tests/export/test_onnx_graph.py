"""What stands in an exported graph: plain operators, folded norms, and nothing of the machine that made it."""

import contextlib
import copy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from exported_models import MODELS, RESIDUAL, SHAPE, make

import robust_nas
from robust_nas.export.onnx import IR_VERSION, OPSET, OnnxModel, onnx_bytes
from robust_nas.export.program import program_bytes
from robust_nas.spaces import ResidualArchitecture

BOTTLENECK = ResidualArchitecture(name="found", block="bottleneck", stem=4, depths=(1, 1), widths=(8, 16))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(count))


def operators(graph: bytes) -> Counter:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.fixture(scope="module")
def compressed():
    model = make(*MODELS["compressed"])
    return model.network, onnx_bytes(model.network, SHAPE)


def test_gathered_channels_are_one_gather_on_axis_1(compressed):
    nodes = [node for node in onnx.load_from_string(compressed[1]).graph.node if node.op_type == "Gather"]
    assert [node.attribute[0].i for node in nodes] == [1, 1]  # the even g gathers nothing
    assert not set(operators(compressed[1])) & {"Transpose", "Reshape", "GatherND", "GatherElements"}


@pytest.fixture(scope="module")
def program(compressed):
    """The archive of the same network, in training mode; that it is left as it was is looked at here."""
    network = copy.deepcopy(compressed[0]).train()
    with left_as_it_was(network):
        return program_bytes(network, SHAPE)


@contextlib.contextmanager
def left_as_it_was(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    strides = [parameter.stride() for parameter in network.parameters()]
    yield
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [parameter.stride() for parameter in network.parameters()] == strides
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_channels_last_network_in_training_gives_the_same_graph_and_is_left_as_it_was(compressed):
    network, graph = compressed
    own = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    with left_as_it_was(own):
        assert onnx_bytes(own, SHAPE) == graph  # of eval mode, and the same bytes again


def test_opset_and_format_are_the_stated_ones_and_no_other_domain_is_needed(compressed):
    model = onnx.load_from_string(compressed[1])
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == IR_VERSION
    assert len(model.functions) == 0


def test_batch_norms_right_behind_a_convolution_are_in_it_and_the_others_stay():
    graph = onnx.load_from_string(onnx_bytes(make(RESIDUAL).network, SHAPE)).graph
    uses = Counter(name for node in graph.node for name in node.input)
    made_by = {name: node for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    # Of the five, conv1's two are folded; the others follow a sum, or a stem that the sum takes too.
    sources = [(made_by[node.input[0]].op_type, uses[node.input[0]]) for node in norms]
    assert len(sources) == 3
    assert all(kind == "Add" or used > 1 for kind, used in sources)


def test_bottleneck_blocks_export():
    network = make(BOTTLENECK).network
    exported = OnnxModel(onnx_bytes(network, SHAPE))
    with torch.no_grad():
        for count in (1, 5):
            torch.testing.assert_close(exported(images(count)), network(images(count)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["onnx", "program"])
def test_nothing_of_the_makers_machine_travels_with_it(form, compressed, program):
    written = {"onnx": compressed[1], "program": program}[form]
    for place in (robust_nas.__file__, torch.__file__):
        assert str(Path(place).parent).encode() not in written
    assert b".py" not in written
    assert b"stack_trace" not in written


LOADED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("robust_nas", "safetensors", "pydantic"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load(sys.argv[2], weights_only=True)).detach(), sys.argv[3])
"""


def test_a_program_is_loaded_without_this_package(compressed, program, tmp_path):
    (tmp_path / "network.pt2").write_bytes(program)
    torch.save(images(3), tmp_path / "images.pt")
    files = [str(tmp_path / name) for name in ("network.pt2", "images.pt", "logits.pt")]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *files], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(
            torch.load(tmp_path / "logits.pt", weights_only=True),
            compressed[0](images(3)),
            atol=1e-5,
            rtol=1e-4,
        )

"""The contract of every operation: its cost is torch's count, and fused and folded it is the plain module."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_cases import GATED, batch, pair
from torch import nn

from robust_nas.attacks.folding import folded
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.nets import build_network
from robust_nas.nets.cost import measured_cost
from robust_nas.nets.folded import AdaptedCell, FoldedSupernet, Output, fold_adapter, fold_cell
from robust_nas.nets.fused import FusedEdges, fused_nodes
from robust_nas.operations import OPERATIONS, Operation
from robust_nas.operations.folded_terms import ModuleTerm
from robust_nas.spaces import Size, count, load_space, sample
from robust_nas.user_code import own_config

every_operation = pytest.mark.parametrize("name", OPERATIONS.names())
NB201 = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
SPACES = [*([name] for name in OPERATIONS.names()), NB201, ["gated"], ["sep_conv_3x3", "gated", "none"]]


@pytest.fixture
def gated(tmp_path):
    """The name of an operation that has neither a fuse nor a fold of its own."""
    (tmp_path / "gated.py").write_text(GATED)
    with own_config(tmp_path):
        yield OPERATIONS.get("gated.py:Gated").model_fields["name"].default


@settings(max_examples=30)
@given(
    st.sampled_from([1, 2]),
    st.integers(2, 20),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
)
@every_operation
def test_the_cost_is_torch_s_own_count_and_the_output_the_ceiling_of_the_stride(
    name, stride, channels, height, width, affine
):
    operation = OPERATIONS.get(name)
    module = operation.build(channels, stride, affine)
    output = module.eval()(torch.rand(2, channels, height, width))
    assert output.shape == (2, channels, -(-height // stride), -(-width // stride))
    expected = measured_cost(module, (channels, height, width))
    assert operation.cost(channels, stride, output.shape[2] * output.shape[3], affine) == expected


@every_operation
def test_attributes_are_true_of_the_module(name):
    operation = OPERATIONS.get(name)
    assert operation.model_fields["name"].default == name
    assert list(operation.model_fields) == ["name"]
    module = operation.build(4, 1, True).eval()
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).square().sum(), x)
    assert operation.connects == bool(gradient.any())
    assert operation.is_skip == torch.equal(module(x), x)
    assert not any(
        isinstance(part, nn.BatchNorm2d) and part.affine for part in operation.candidate(4, 2).modules()
    )


@every_operation
@pytest.mark.parametrize("stride", [1, 2])
def test_a_candidate_is_known_until_it_is_changed(name, stride):
    operation = OPERATIONS.get(name)
    module = operation.candidate(4, stride)
    assert operation.knows(module)  # every operation here is fused and folded by itself
    module.register_forward_hook(lambda *_: None)
    assert not operation.knows(module)
    assert not operation.knows(nn.Tanh())


REPLACED = [
    ("nor_conv_3x3", "1", lambda: nn.ReLU()),
    ("nor_conv_3x3", "1", lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))),
    ("nor_conv_3x3", "1", lambda: nn.Conv2d(4, 4, 3, padding=1)),
    ("nor_conv_3x3", "1", lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False, groups=4)),
    ("nor_conv_3x3", "1", lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False, padding_mode="circular")),
    ("nor_conv_1x1", "2", lambda: nn.Identity()),
    ("skip_connect", "bn", lambda: nn.Identity()),
    ("skip_connect", "conv2", lambda: nn.Conv2d(8, 4, 1)),
    ("sep_conv_3x3", "3", lambda: nn.Identity()),
    ("sep_conv_3x3", "1", lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False)),
    ("dil_conv_3x3", "2", lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False)),
    ("max_pool_3x3", "0", lambda: nn.MaxPool2d(5, 1, padding=2)),
    ("max_pool_3x3", "1", lambda: nn.Identity()),
    ("avg_pool_3x3", "0", lambda: nn.AvgPool2d(3, 1, padding=1)),
    ("avg_pool_3x3", "0", lambda: nn.Tanh()),
]


@pytest.mark.parametrize(("name", "part", "new"), REPLACED)
def test_a_candidate_with_a_replaced_part_takes_the_general_path(name, part, new):
    """A part of another kind was once read as if it were the one that was built."""
    fused, _ = pair([name, "none"])
    strided = name == "skip_connect"  # elsewhere it is the identity
    edges = [edge for cell in fused.cells if cell.reduction == strided for edge in cell.edges]
    candidate = next(edge[0] for edge in edges if isinstance(edge[0], FactorizedReduce) == strided)
    candidate.set_submodule(part, new().double())
    assert not OPERATIONS.get(name).knows(candidate)
    plain = copy.deepcopy(fused)
    plain.execution = "plain"
    x, labels = batch(8)
    for mode in (False, True):
        logits = [net.train(mode)(x) for net in (fused, plain)]
        torch.testing.assert_close(*logits, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(judged(fused.folded(), x, labels), judged(plain.eval(), x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", ["0.2", "1.bn"])
def test_an_adapter_with_a_replaced_part_is_called_as_it_is(part):
    adapters = nn.Sequential(ReLUConvBN(3, 4, False), FactorizedReduce(3, 4, False)).double().eval()
    adapters.set_submodule(part, nn.Identity())
    module = adapters[int(part[0])]
    x, _ = batch(8)
    assert torch.equal(fold_adapter(module, x.dtype)(Output(x)), module(x))


def everything(net, x, labels):
    x = x.clone().requires_grad_()
    logits = net(x)
    named = dict(net.named_parameters())
    gradients = torch.autograd.grad(F.cross_entropy(logits, labels), [x, *named.values()], allow_unused=True)
    found = dict(zip(["images", *named], gradients, strict=True))
    return {"logits": logits.detach(), **found, **dict(net.named_buffers())}


def named(space, gated):
    return [gated if name == "gated" else name for name in space]


@pytest.mark.parametrize("space", SPACES, ids="+".join)
@pytest.mark.parametrize(("mode", "side"), [("train", 9), ("eval", 8)])
def test_fused_is_plain(space, mode, side, gated):
    found = [everything(net.train(mode == "train"), *batch(side)) for net in pair(named(space, gated))]
    for name, value in found[1].items():
        mine = found[0][name]
        assert (mine is None) == (value is None), name
        if value is not None:
            torch.testing.assert_close(
                mine, value, rtol=1e-9, atol=1e-9 * float(value.abs().max()) + 1e-15, msg=name
            )


def judged(net, x, labels, times=1):
    x = x.detach().clone().requires_grad_()
    logits = net(x)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    for last in range(times):
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=last < times - 1)
    return logits.detach(), gradient


@pytest.mark.parametrize("space", SPACES, ids="+".join)
@pytest.mark.parametrize("side", [8, 5])
@pytest.mark.parametrize("channels", [3, 16])
def test_folded_is_plain_and_the_supernet_stays_as_it_was(space, side, channels, gated):
    fused, plain = pair(named(space, gated), channels=channels)
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    x, labels = batch(side)
    for copied in (fused.folded(), folded(fused.eval(), x).network):
        assert isinstance(copied, FoldedSupernet)
        for times in (1, 2):
            found = zip(judged(copied, x, labels, times), judged(plain.eval(), x, labels), strict=True)
            for mine, theirs in found:
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(before[name], tensor) for name, tensor in fused.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fused.parameters())


def test_only_the_operation_without_a_fold_takes_the_general_path(gated):
    fused, _ = pair(["sep_conv_3x3", gated, "skip_connect"])
    general = [
        isinstance(term, ModuleTerm)
        for adapted in fused.folded().parts.cells
        for source in adapted.cell.sources
        for _, term in source
    ]
    assert sum(general) * 3 == len(general)


def test_under_autocast_and_inference_mode_the_general_path_goes_on(gated):
    fused, _ = pair(["sep_conv_3x3", gated])
    copied, x = fused.float().folded(), batch(8)[0].float()
    with torch.inference_mode():
        exact = copied(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = copied(x)
    assert (half - exact).norm() < 0.1 * exact.norm()
    labels = batch(8)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = judged(copied, x, labels)[1]
    assert F.cosine_similarity(rough.flatten(), judged(copied, x, labels)[1].flatten(), dim=0) > 0.95


def test_a_1x1_relu_conv_bn_of_a_plugin_does_not_crash_a_folded_supernet(tmp_path):
    """NAS-Bench-201's 1x1 convolution entered as a `ReLUConvBN` once crashed every attack of a search."""
    (tmp_path / "own.py").write_text(
        "from robust_nas.operations import Cost, Operation\n"
        "class Conv1x1(Operation):\n"
        "    @classmethod\n"
        "    def build(cls, channels, stride, affine):\n"
        "        from robust_nas.layers.relu_conv_bn import ReLUConvBN\n"
        "        return ReLUConvBN(channels, channels, affine, stride=stride)\n"
    )
    with own_config(tmp_path):
        name = OPERATIONS.get("own.py:Conv1x1").model_fields["name"].default
        fused, plain = pair(["skip_connect", name])
    for mine, theirs in zip(judged(fused.folded(), *batch(8)), judged(plain.eval(), *batch(8)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_count_of_a_network_is_torch_s_own(seed):
    space = load_space("dsara", {"operations": OPERATIONS.names()})
    architecture = sample(space, seed, size=Size(cells=5, channels=4))
    network = build_network(architecture, input_shape=(3, 9, 7), classes=5)
    assert count(architecture, (3, 9, 7), 5) == measured_cost(network, (3, 9, 7))


def test_a_method_that_is_written_for_instances_is_refused():
    with pytest.raises(TypeError, match=r"Crooked.cost needs @classmethod"):

        class Crooked(Operation):
            def cost(self, channels, stride, pixels, affine):
                return None


def test_the_room_is_read_without_torch():
    code = (
        "import sys\n"
        "from robust_nas.operations import ACTIVATIONS, OPERATIONS\n"
        "for registry in (ACTIVATIONS, OPERATIONS):\n"
        "    [registry.get(name) for name in registry.names()]\n"
        "OPERATIONS.get('sep_conv_3x3').cost(4, 1, 16, True)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("channels", [3, 16])
def test_cells_of_one_input_and_one_output_node_are_fused_and_folded(channels):
    """NAS-Bench-201's cell: every node takes all states before it, the last node is the output."""
    ends = [(node, source) for node in range(3) for source in range(node + 1)]
    torch.manual_seed(0)
    candidates = [[OPERATIONS.get(name).candidate(channels, 1) for name in NB201] for _ in ends]
    edges = nn.ModuleList(nn.ModuleList(one) for one in candidates).double().eval()
    weights = torch.rand(len(ends), len(NB201), dtype=torch.float64)
    x = torch.randn(2, channels, 5, 6, dtype=torch.float64, requires_grad=True)
    states = [x]
    for node in range(3):
        terms = [
            weights[edge, index] * operation(states[source])
            for edge, (end, source) in enumerate(ends)
            if end == node
            for index, operation in enumerate(edges[edge])
        ]
        states.append(sum(terms))
    fused = fused_nodes([x], FusedEdges(ends, edges, NB201, weights), 3)[-1]
    folded_cell = fold_cell(ends, edges, NB201, weights, channels, False, inputs=1)
    adapted = AdaptedCell([fold_adapter(nn.Identity(), x.dtype)], folded_cell, output=(2,))
    for found in (fused, adapted([Output(x), Output(x)])):
        torch.testing.assert_close(found, states[-1], rtol=1e-9, atol=1e-12)
        own, other = (
            torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (found, states[-1])
        )
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)

"""Bottleneck and robust-res blocks: equal to their formulas written anew, initialisations, activations, folders."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from residual_networks import MEAN, SHAPE, STD, images, trained
from torch import Tensor, fx, nn

from robust_nas.layers.activations import relu
from robust_nas.nets import ModelDescription, build_network, inference_state, read_model, save_model
from robust_nas.nets.residual import BlockPlan, BottleneckBlock, ResidualNetwork, RobustResBlock
from robust_nas.spaces import ResidualArchitecture, count, load_architecture

SIZE = {"name": "small", "stem": 3, "depths": (2, 1, 2), "widths": (6, 7, 7)}
NUMBERS = {"expansion": 2, "cardinality": 3, "base_width": 60, "se_reduction": 5}
SMALL = {
    "bottleneck": ResidualArchitecture(**SIZE, block="bottleneck", expansion=3, activation="silu"),
    "robust-res": ResidualArchitecture(**SIZE, block="robust-res", scales=3, **NUMBERS),
    "one scale": ResidualArchitecture(**SIZE, block="robust-res", scales=1, **NUMBERS, activation="gelu"),
    "raw": ResidualArchitecture(
        **SIZE, block="robust-res", scales=4, **NUMBERS, preactivated=False, activation="softplus"
    ),
}
FUNCTIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "softplus": F.softplus}
every_block = pytest.mark.parametrize("architecture", SMALL.values(), ids=SMALL.keys())


def by_formula(network: ResidualNetwork, architecture: ResidualArchitecture, x: Tensor) -> Tensor:
    """The forward pass from the weights and the architecture alone."""
    state = network.state_dict()
    act = FUNCTIONS[architecture.activation]

    def norm(x: Tensor, name: str) -> Tensor:
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values)

    def squeeze_excite(x: Tensor, name: str) -> Tensor:
        hidden = F.relu(x.mean((2, 3)) @ state[f"{name}.squeeze.weight"].T)
        return x * torch.sigmoid(hidden @ state[f"{name}.excite.weight"].T)[:, :, None, None]

    def robust_res(hidden: Tensor, name: str, stride: int) -> Tensor:
        groups, scales = architecture.cardinality or 0, architecture.scales or 0
        size = hidden.shape[1] // scales
        outputs: list[Tensor] = []
        for index in range(max(scales - 1, 1)):
            part = hidden[:, index * size : (index + 1) * size]
            if outputs and stride == 1:
                part = part + outputs[-1]
            weight = state[f"{name}.convs.{index}.weight"]
            part = F.conv2d(part, weight, stride=stride, padding=1, groups=groups)
            outputs.append(act(norm(part, f"{name}.norms.{index}")))
        if scales > 1:
            last = hidden[:, (scales - 1) * size :]
            outputs.append(last if stride == 1 else F.avg_pool2d(last, 3, stride, padding=1))
        residual = F.conv2d(torch.cat(outputs, 1), state[f"{name}.conv3.weight"])
        return residual + squeeze_excite(norm(residual, f"{name}.norm3"), f"{name}.se")

    def bottleneck(hidden: Tensor, name: str, stride: int) -> Tensor:
        hidden = F.conv2d(hidden, state[f"{name}.conv2.weight"], stride=stride, padding=1)
        return F.conv2d(act(norm(hidden, f"{name}.norm3")), state[f"{name}.conv3.weight"])

    x = (x - state["normalise.mean"]) / state["normalise.std"]
    x = F.conv2d(x, state["stem.weight"], padding=1)
    for stage, (depth, width, stride) in enumerate(architecture.stages()):
        for block in range(depth):
            name, step = f"stages.{stage}.{block}", 1 if block else stride
            a = act(norm(x, f"{name}.norm1"))
            changes = x.shape[1] != architecture.outputs(width) or step != 1
            shortcut = F.conv2d(a, state[f"{name}.shortcut.weight"], stride=step) if changes else x
            seen = x if architecture.preactivated is False else a
            hidden = act(norm(F.conv2d(seen, state[f"{name}.conv1.weight"]), f"{name}.norm2"))
            residual = bottleneck if architecture.block == "bottleneck" else robust_res
            x = shortcut + residual(hidden, name, step)
    features = act(norm(x, "norm")).mean((2, 3))
    return features @ state["classifier.weight"].T + state["classifier.bias"]


@every_block
def test_the_network_computes_the_formulas(architecture: ResidualArchitecture) -> None:
    network = trained(architecture).double()
    x = images(4, *SHAPE, seed=2).double()
    with torch.no_grad():
        torch.testing.assert_close(network(x), by_formula(network, architecture, x))


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
)
@settings(max_examples=30)
def test_a_block_gives_the_ceiling_of_its_stride(
    c_in: int, width: int, stride: int, height: int, columns: int, scales: int
) -> None:
    plan = BlockPlan("robust-res", 2, 3, scales, 160, 1)
    shape = (2, 2 * width, -(-height // stride), -(-columns // stride))
    x = images(2, c_in, height, columns)
    for block in (
        BottleneckBlock(c_in, width, stride, 2, relu).eval(),
        RobustResBlock(c_in, width, stride, plan, relu).eval(),
    ):
        with torch.no_grad():
            assert block(x).shape == shape


@every_block
def test_no_1x1_convolution_is_strided_and_none_has_a_bias(architecture: ResidualArchitecture) -> None:
    # oneDNN (issue 6035) writes beyond its memory in the backward pass of a strided one in channels-last order
    for module in trained(architecture).modules():
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (3, 3) or module.stride == (1, 1)
            assert module.bias is None


@every_block
def test_the_network_can_be_traced(architecture: ResidualArchitecture) -> None:
    network = trained(architecture)
    x = images(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(network)(x), network(x))


@every_block
def test_every_parameter_has_a_use_unless_the_raw_input_leaves_the_first_norm_out(
    architecture: ResidualArchitecture,
) -> None:
    network = trained(architecture).train()
    network(images(4, *SHAPE)).square().sum().backward()
    unused = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    kept = {
        "stages.0.1.norm1.weight",
        "stages.0.1.norm1.bias",
        "stages.2.1.norm1.weight",
        "stages.2.1.norm1.bias",
    }
    assert unused == (kept if architecture.preactivated is False else set())


@every_block
def test_a_model_folder_is_rebuilt_to_the_same_logits_bit_for_bit(
    tmp_path: Path, architecture: ResidualArchitecture
) -> None:
    network = trained(architecture)
    description = ModelDescription(input_shape=SHAPE, class_names=("a", "b", "c"), mean=MEAN, std=STD)
    save_model(tmp_path, architecture, inference_state(network), description)
    model = read_model(tmp_path)
    assert model.architecture == architecture
    x = images(4, *SHAPE, seed=3)
    with torch.no_grad():
        assert torch.equal(model.network(x), network(x))


@pytest.mark.parametrize(
    ("initialisation", "variance"),
    [("he-fan-out", "2 / out"), ("he-fan-in", "2 / in"), ("lecun", "1 / in")],
)
def test_convolutions_start_with_the_variance_of_their_initialisation(
    initialisation: str, variance: str
) -> None:
    architecture = ResidualArchitecture(
        name="x",
        block="robust-res",
        base_width=40,
        depths=(1, 1),
        widths=(64, 96),
        initialisation=initialisation,
    )
    network = build_network(architecture)
    tested = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fans = {"in": module.weight[0].numel(), "out": module.weight[:, 0].numel()}
            gain, fan = variance.split(" / ")
            expected = (int(gain) / fans[fan]) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.08)
            tested += 1
    assert tested > 8


def test_an_activation_has_no_weights_and_another_function() -> None:
    networks = [
        build_network(load_architecture("wrn-10-1").model_copy(update={"activation": name})).eval()
        for name in FUNCTIONS
    ]
    states = [network.state_dict() for network in networks]
    x = images(2, 3, 16, 16)
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
    with torch.no_grad():
        logits = [network(x) for network in networks]
    assert len({tuple(value.flatten().tolist()) for value in logits}) == len(FUNCTIONS)


def test_the_published_network_is_built_as_it_is_counted() -> None:
    architecture = load_architecture("rrn-a1")
    with torch.device("meta"):
        network = build_network(architecture)
    assert (
        sum(parameter.numel() for parameter in network.parameters())
        == count(architecture).params
        == 19_222_738
    )

"""Residual networks: equal to the usual WRN code written anew, initialisation, tracing, model folders."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from residual_networks import MEAN, SHAPE, SMALL, STD, images, trained
from torch import Tensor, fx, nn

from robust_nas.errors import ArchitectureError, CheckpointError
from robust_nas.layers.activations import relu
from robust_nas.nets import (
    ModelDescription,
    ResidualNetwork,
    build_network,
    channels_last,
    inference_state,
    load_model,
    read_model,
    save_model,
)
from robust_nas.nets.residual import BasicBlock
from robust_nas.spaces import ResidualArchitecture, load_architecture


def usual(network: ResidualNetwork, architecture: ResidualArchitecture, x: Tensor) -> Tensor:
    """The forward pass of the WRN code that published robust models share, from the weights alone."""
    state = network.state_dict()

    def act(x: Tensor, name: str) -> Tensor:
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *values))

    x = (x - state["normalise.mean"]) / state["normalise.std"]
    x = F.conv2d(x, state["stem.weight"], padding=1)
    for stage, (depth, width, stride) in enumerate(architecture.stages()):
        for block in range(depth):
            name = f"stages.{stage}.{block}"
            step = stride if block == 0 else 1
            equal_in_out = x.shape[1] == width and step == 1
            if not equal_in_out:
                x = act(x, f"{name}.norm1")
                out = x
            else:
                out = act(x, f"{name}.norm1")
            out = F.conv2d(out, state[f"{name}.conv1.weight"], stride=step, padding=1)
            out = F.conv2d(act(out, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
            x = out + (x if equal_in_out else F.conv2d(x, state[f"{name}.shortcut.weight"], stride=step))
    x = act(x, "norm").mean((2, 3))
    return x @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("architecture", [SMALL, load_architecture("wrn-16-1")], ids=lambda a: str(a.name))
def test_the_network_is_the_usual_wrn_code(architecture: ResidualArchitecture) -> None:
    network = trained(architecture)
    x = images(4, *SHAPE, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(network(x), usual(network, architecture, x))


def test_convolutions_have_no_bias_and_shortcuts_stand_where_shape_changes_alone() -> None:
    network = trained()
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))
    blocks = [block for block in network.modules() if isinstance(block, BasicBlock)]
    assert [block.shortcut is not None for block in blocks] == [False, False, True, True, False]
    # the last: stride 2 with equal channels, where the usual code fails with a shape error


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=40)
def test_a_block_gives_the_ceiling_of_its_stride(
    c_in: int, c_out: int, stride: int, height: int, width: int
) -> None:
    block = BasicBlock(c_in, c_out, stride, relu).eval()
    with torch.no_grad():
        assert block(images(2, c_in, height, width)).shape == (
            2,
            c_out,
            -(-height // stride),
            -(-width // stride),
        )


def test_a_block_without_residual_is_its_shortcut() -> None:
    x = images(2, 4, 6, 6) - 0.5
    for stride in (1, 2):
        block = BasicBlock(4, 4, stride, relu).eval()
        with torch.no_grad():
            block.conv2.weight.zero_()
            if block.shortcut is None:
                assert torch.equal(block(x), x)
            else:
                active = F.relu(x / (1 + 1e-5) ** 0.5)
                torch.testing.assert_close(block(x), block.shortcut(active[:, :, ::2, ::2]))


def test_no_1x1_convolution_is_strided() -> None:
    # oneDNN (issue 6035) writes beyond its memory in the backward pass of a strided one in channels-last order
    for module in trained().modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1)


def test_a_stage_of_equal_channels_may_halve_the_resolution() -> None:
    architecture = ResidualArchitecture(
        name="x", stem=4, depths=(1, 1, 1), widths=(4, 4, 4), strides=(2, 2, 1)
    )
    network = build_network(architecture, input_shape=(1, 8, 8), classes=2).eval()
    x = network.stages(network.stem(images(1, 1, 8, 8)))
    assert x.shape == (1, 4, 2, 2)
    assert network(images(3, 1, 8, 8)).shape == (3, 2)


def test_normalisation_is_the_first_layer() -> None:
    network = build_network(SMALL, input_shape=SHAPE, mean=MEAN, std=STD).eval()
    plain = build_network(SMALL, input_shape=SHAPE).eval()
    x = images(2, *SHAPE)
    by_hand = (x - torch.tensor(MEAN).view(2, 1, 1)) / torch.tensor(STD).view(2, 1, 1)
    with torch.no_grad():
        assert torch.equal(network(x), plain(by_hand))


def test_a_seed_decides_the_weights_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_network(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])


def test_convolutions_start_with_hes_deviation_over_the_fan_out() -> None:
    network = build_network(load_architecture("wrn-10-4"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert not network.classifier.bias.detach().any()


@pytest.mark.parametrize("name", ["wrn-10-1", "wrn-16-2"])
def test_the_network_can_be_traced(name: str) -> None:
    network = build_network(load_architecture(name)).eval()
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(network)(x), network(x))


def test_what_cell_networks_alone_have_is_refused() -> None:
    for choice in ({"auxiliary": True}, {"affine": False}):
        with pytest.raises(ArchitectureError, match=r"small: got auxiliary=.*is built with auxiliary=False"):
            build_network(SMALL, **choice)


def test_channels_last_and_autocast_are_respected() -> None:
    network = trained()
    x = images(2, *SHAPE)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(x).dtype == torch.bfloat16
        out = channels_last(network)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert network.stem.weight.is_contiguous(memory_format=torch.channels_last)


def saved(folder: Path) -> ResidualNetwork:
    network = trained()
    description = ModelDescription(
        input_shape=SHAPE, class_names=("a", "b", "c"), mean=MEAN, std=STD, made_by={"seed": 1}
    )
    save_model(folder, SMALL, inference_state(network), description)
    return network


def test_a_model_folder_is_rebuilt_to_the_same_logits_bit_for_bit(tmp_path: Path) -> None:
    network = saved(tmp_path)
    x = images(4, *SHAPE, seed=3)
    model = read_model(tmp_path)
    assert model.architecture == SMALL
    with torch.no_grad():
        assert torch.equal(model.network(x), network(x))
        assert torch.equal(load_model(str(tmp_path))(x), network(x))
    save_model(tmp_path / "again", model.architecture, inference_state(model.network), model.description)
    for name in ("architecture.yaml", "model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (3, 4, 5)},
        {"depths": (2, 2, 2)},
        {"strides": (1, 2, 1)},  # no shortcut convolution in the last stage
        {"widths": (1 << 20,) * 3, "depths": (300,) * 3},
    ],
)
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, change: dict[str, tuple[int, ...]]
) -> None:
    saved(tmp_path)
    (tmp_path / "architecture.yaml").write_text(SMALL.model_copy(update=change).to_yaml())
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        read_model(tmp_path)


def test_a_model_folder_of_no_known_type_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    text = (tmp_path / "architecture.yaml").read_text()
    (tmp_path / "architecture.yaml").write_text(text.replace("type: residual", "type: tree"))
    with pytest.raises(CheckpointError, match="got type 'tree'; allowed: cell, residual, mlp"):
        read_model(tmp_path)

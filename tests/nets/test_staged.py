"""The outputs of the stages, of every family: one per stage of `parts`, the logits last, `forward` bit for bit."""

import pytest
import torch
from torch import fx, nn

from robust_nas.nets import build_network
from robust_nas.spaces import (
    Architecture,
    MLPArchitecture,
    ResidualArchitecture,
    Size,
    load_architecture,
    load_space,
    parts,
    sample,
)

SHAPE = (3, 9, 8)
SIZE = {"name": "x", "depths": (2, 1, 1), "widths": (16, 16, 20)}
ARCHITECTURES = {
    "basic": ResidualArchitecture(**SIZE),
    "bottleneck": ResidualArchitecture(**SIZE, block="bottleneck"),
    "robust-res": ResidualArchitecture(**SIZE, block="robust-res"),
    "one stage": ResidualArchitecture(name="x", depths=(1,), widths=(4,), strides=(2,)),
    "mlp": MLPArchitecture(name="x", depth=3, width=5),
    "mlp ntk": MLPArchitecture(name="x", depth=1, width=5, initialisation="ntk"),
    "cells": sample(load_space("dsara"), 1, size=Size(cells=6, channels=4)),
    "reduction first": load_architecture("darts_v2").resized(2, 4),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_staged_gives_every_stage_and_forward_s_logits(architecture: Architecture) -> None:
    network = build_network(architecture, input_shape=SHAPE, classes=4).eval()
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network.staged(x)
        logits = network(x)
        assert torch.equal(outputs[-1], logits)
        assert torch.equal(fx.symbolic_trace(network)(x), logits)
    assert len(outputs) == sum(part.name != "stem" for part in parts(architecture, SHAPE, 4))
    assert outputs[-1].shape == (2, 4)
    assert all(len(output) == 2 for output in outputs)


def test_the_stages_of_a_residual_network_are_its_modules_outputs() -> None:
    network = build_network(ARCHITECTURES["basic"], input_shape=SHAPE).eval()
    seen: list[torch.Tensor] = []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        outputs = network.staged(torch.rand(2, *SHAPE))
    assert [tuple(output.shape) for output in outputs] == [
        (2, 16, 9, 8),
        (2, 16, 5, 4),
        (2, 20, 3, 2),
        (2, 10),
    ]
    assert all(torch.equal(*pair) for pair in zip(seen, outputs[:-1], strict=True))


def test_a_reduction_cell_begins_a_stage_of_cells() -> None:
    architecture = ARCHITECTURES["cells"]
    network = build_network(architecture, input_shape=SHAPE).eval()
    seen: list[torch.Tensor] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        outputs = network.staged(torch.rand(2, *SHAPE))
    places = architecture.places()
    last = [
        index
        for index, place in enumerate(places)
        if index + 1 == len(places) or places[index + 1].stage > place.stage
    ]
    assert [places[index + 1].reduction for index in last[:-1]] == [True, True]
    assert all(output is seen[index] for output, index in zip(outputs[:-1], last, strict=True))


def test_a_first_stage_without_cells_gives_the_stem() -> None:
    network = build_network(ARCHITECTURES["reduction first"], input_shape=SHAPE).eval()
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(network.staged(x)[0], network.stem(network.normalise(x)))
    assert isinstance(network.stem, nn.Sequential)

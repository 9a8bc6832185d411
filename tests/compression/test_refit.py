"""Fitting the mixing: exact where nothing was left out, the least squares solution, never worse on its images."""

import copy

import torch
from compression_networks import SHAPE, images, residual
from torch import nn

from robust_nas.compression.gdws_layer import gdws_layer
from robust_nas.compression.gdws_network import compress_gdws
from robust_nas.compression.refit import refit
from robust_nas.layers.factorised import rebuild


def single() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1)).double().eval()


def test_one_layer_gets_the_least_squares_solution():
    network, x = single(), images(8)
    compressed = copy.deepcopy(network)
    compressed[0] = gdws_layer(network[0], torch.tensor([2, 1]))
    before = (compressed(x) - network(x)).square().mean()
    maps = compressed[0].depthwise[0](x[:, compressed[0].index]).transpose(0, 1).flatten(1).T
    maps = torch.cat([maps, torch.ones(len(maps), 1, dtype=maps.dtype)], 1)
    target = network(x).transpose(0, 1).flatten(1).T
    best = torch.linalg.lstsq(maps, target).solution
    forms = refit(network, compressed, ["0"], x, batch_size=3)
    assert [form.name for form in forms] == ["0.pointwise"]
    torch.testing.assert_close(compressed[0].pointwise.weight[:, :, 0, 0], best[:-1].T, atol=1e-4, rtol=1e-3)
    after = (compressed(x) - network(x)).square().mean()
    assert after < before


def test_where_nothing_was_left_out_nothing_changes():
    network, x = single(), images(8)
    compressed = copy.deepcopy(network)
    compressed[0] = gdws_layer(network[0], torch.tensor([5, 5]))
    refit(network, compressed, ["0"], x)
    torch.testing.assert_close(compressed(x), network(x), atol=1e-4, rtol=1e-4)


def test_a_network_is_nearer_to_the_original_and_rebuilt_from_its_forms():
    network, x = residual(), images(24)
    plain = compress_gdws(network, SHAPE, macs=0.5)
    fitted = compress_gdws(network, SHAPE, macs=0.5, calibration=x)
    new = images(16, 7)
    distance = [(found.network(new) - network(new)).square().mean() for found in (plain, fitted)]
    assert distance[1] < 0.5 * distance[0]
    assert fitted.macs_after == plain.macs_after
    assert [row["kernels"] for row in fitted.report] == [row["kernels"] for row in plain.report]
    again = residual(9)
    rebuild(again, fitted.forms)
    again.load_state_dict(fitted.network.state_dict())
    assert torch.equal(again(new), fitted.network(new))

"""Networks from an architecture: seeds, odd sizes, drop path, the auxiliary head, formats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.errors import ArchitectureError
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.nets import build_network, channels_last
from robust_nas.nets.network import AuxiliaryHead, DropPath
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import Size, load_architecture, load_space, sample

SMALL = sample(load_space("dsara"), 0, size=Size(cells=5, channels=4))


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 16])
def test_factorised_reduce_takes_the_even_and_the_odd_pixels(channels: int) -> None:
    reduce = FactorizedReduce(channels, 2, affine=False).eval()
    with torch.no_grad():
        reduce.conv1.weight.fill_(1 / channels)
        reduce.conv2.weight.fill_(1 / channels)
    for side in (6, 7):
        x = images(1, 1, side, side)
        aside = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2][:, :, : -(-side // 2), : -(-side // 2)]
        expected = torch.cat([x[:, :, ::2, ::2], aside], 1) / (1 + 1e-5) ** 0.5
        torch.testing.assert_close(reduce(x.expand(1, channels, side, side)), expected)


def test_no_1x1_convolution_on_few_channels_is_strided() -> None:
    # oneDNN (issue 6035) writes beyond its memory in the backward pass of one in channels-last order
    for channels in (1, 15, 16):
        reduce = FactorizedReduce(channels, 4)
        assert {reduce.conv1.stride, reduce.conv2.stride} == {(2, 2) if channels == 16 else (1, 1)}


def test_average_pooling_does_not_count_the_border() -> None:
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(OPERATIONS.get("avg_pool_3x3").build(2, 1, False)(ones), ones)


def test_a_seed_decides_the_weights_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_network(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_an_auxiliary_head_leaves_the_other_weights_as_they_are() -> None:
    plain = build_network(SMALL, seed=1).state_dict()
    both = build_network(SMALL, seed=1, auxiliary=True).state_dict()
    assert all(torch.equal(plain[name], both[name]) for name in plain)
    assert {name.split(".")[0] for name in both.keys() - plain.keys()} == {"auxiliary"}


def test_normalisation_is_the_first_layer() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    network = build_network(SMALL, mean=mean, std=std).eval()
    plain = build_network(SMALL).eval()
    x = images(2, 3, 16, 16)
    by_hand = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(network(x), plain(by_hand))


def test_drop_path_is_the_identity_in_eval_mode_and_at_zero() -> None:
    network = build_network(SMALL, input_shape=(1, 8, 8))
    x = images(3, 1, 8, 8)
    with torch.no_grad():
        expected = network.eval()(x)
        network.set_drop_path(0.5)
        assert torch.equal(network.eval()(x), expected)
    drop = DropPath().train()
    assert drop(x) is x


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    drop = DropPath().train()
    drop.p = 0.25
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 2, 3, 3))
    per_example = out.flatten(1)
    assert torch.equal(per_example.min(1).values, per_example.max(1).values)
    assert set(per_example[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(out.mean().item() - 1) < 0.03


@settings(max_examples=15)
@given(st.integers(4, 12), st.integers(4, 12))
def test_the_auxiliary_head_pools_maps_of_any_size_to_two_by_two(height: int, width: int) -> None:
    head = AuxiliaryHead(3, height, width, 7).eval()
    assert head(images(2, 3, height, width)).shape == (2, 7)
    assert head.features[:2](images(1, 3, height, width)).shape == (1, 3, 2, 2)


def test_the_auxiliary_head_on_cifar_is_that_of_darts() -> None:
    network = build_network(load_architecture("darts_v2").resized(8, 4), auxiliary=True)
    assert network.auxiliary is not None
    assert network.auxiliary.features[1].kernel_size == (5, 5)
    assert network.auxiliary_after == 2 * 8 // 3
    assert network.eval().auxiliary_logits(images(2, 3, 32, 32)).shape == (2, 10)
    wide = build_network(SMALL, input_shape=(1, 28, 20), auxiliary=True).eval()
    assert wide.auxiliary_logits(images(2, 1, 28, 20)).shape == (2, 10)


def test_an_auxiliary_head_on_small_images_is_our_error() -> None:
    with pytest.raises(ArchitectureError, match="at least 4x4 behind cell 3, got 2x2 from an input of 8x8"):
        build_network(SMALL, input_shape=(1, 8, 8), auxiliary=True)
    with pytest.raises(ValueError, match="without an auxiliary head"):
        build_network(SMALL).auxiliary_logits(images(1, 3, 8, 8))


def test_channels_last_computes_the_same() -> None:
    network = build_network(SMALL).eval()
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(x)
        assert channels_last(network) is network
        out = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_autocast_is_respected() -> None:
    network = build_network(SMALL).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(images(2, 3, 16, 16)).dtype == torch.bfloat16

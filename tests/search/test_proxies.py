"""Every proxy of the registry keeps the contract; each against a closed form."""

import math

import pytest
import torch
from small_search import CLASSES, SPACE
from torch import nn

from robust_nas.nets import build_network
from robust_nas.search import PROXIES
from robust_nas.spaces import Size, count, sample

SHAPE = (1, 8, 8)
CASES = {name: PROXIES.make(name) for name in PROXIES.built_in}
every_proxy = pytest.mark.parametrize("proxy", CASES.values(), ids=CASES)
ARCHITECTURE = sample(SPACE, 1, size=Size(cells=3, channels=4))


def batch(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *SHAPE, generator=generator), torch.arange(count) % CLASSES


def score(proxy, network, images=None, labels=None):
    own, _ = batch()
    images = own if images is None else images
    labels = labels if proxy.needs_labels else None
    return proxy.score(network, images, labels, torch.Generator().manual_seed(0))


@every_proxy
@pytest.mark.parametrize("training", [False, True])
def test_a_proxy_repeats_itself_counts_its_passes_and_leaves_the_network_as_it_was(proxy, training):
    network = build_network(ARCHITECTURE, input_shape=SHAPE, classes=CLASSES, seed=0).train(training)
    network.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    generator = torch.get_rng_state()
    value = score(proxy, network)
    assert type(value) is float
    assert math.isfinite(value)
    assert value == score(proxy, network)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [p.requires_grad for p in network.stem.parameters()] == [False] * 3
    assert proxy.passes >= 0


def test_params_is_the_count_of_the_architecture():
    network = build_network(ARCHITECTURE, input_shape=SHAPE, classes=CLASSES)
    assert score(CASES["params"], network) == count(ARCHITECTURE, SHAPE, CLASSES).params


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_synflow_of_linear_layers_is_their_number_times_the_flow(layers):
    torch.manual_seed(0)
    matrices = [nn.Linear(64 if i == 0 else 5, 5, bias=False) for i in range(layers)]
    network = nn.Sequential(nn.Flatten(), *matrices)
    flow = torch.ones(64, dtype=torch.float64)
    for matrix in matrices:
        flow = matrix.weight.detach().double().abs() @ flow
    assert score(CASES["synflow"], network) == pytest.approx(layers * float(flow.sum()), rel=1e-12)


def test_synflow_takes_no_batch_norm_and_no_sign():
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 3, 3, bias=False), nn.Conv2d(3, 2, 3, bias=False)
    plain = nn.Sequential(first, second)
    value = score(CASES["synflow"], plain)
    normed = nn.Sequential(nn.Sequential(first, nn.BatchNorm2d(3)), second, nn.BatchNorm2d(2, affine=False))
    assert score(CASES["synflow"], normed) == value
    with torch.no_grad():
        first.weight.neg_()
    assert score(CASES["synflow"], plain) == value


class Squares(nn.Module):
    """f(x) = |x|^2 / 2, whose input gradient is the image."""

    def forward(self, x):
        return (x.flatten(1) ** 2).sum(1, keepdim=True) / 2


def expected(eigenvalues):
    return -sum(math.log(value + 1e-5) + 1 / (value + 1e-5) for value in eigenvalues)


def test_jacob_cov_is_best_where_gradients_are_uncorrelated():
    hadamard = torch.tensor([[1.0]])
    for _ in range(6):
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )  # [64, 64]; every row but the first sums to zero
    rows = hadamard[1:8].reshape(7, *SHAPE)
    assert score(CASES["jacob-cov"], Squares(), rows) == pytest.approx(expected([1.0] * 7), rel=1e-9)
    twice = torch.cat([rows[:1], rows[:1]])  # one correlation of 1: eigenvalues 2 and 0
    assert score(CASES["jacob-cov"], Squares(), twice) == pytest.approx(expected([2.0, 0.0]), rel=1e-6)

"""Every proxy of the registry keeps the contract; each against a closed form."""

import copy
import math

import pytest
import torch
from small_search import CLASSES, SPACE
from torch import nn

from robust_nas.errors import ConfigError
from robust_nas.nets import build_network
from robust_nas.search import PROXIES
from robust_nas.spaces import NASBench201Architecture, Size, count, sample

SHAPE = (1, 8, 8)
CASES = {name: PROXIES.make(name) for name in PROXIES.built_in}
every_proxy = pytest.mark.parametrize("proxy", CASES.values(), ids=CASES)
ARCHITECTURE = sample(SPACE, 1, size=Size(cells=3, channels=4))


def batch(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *SHAPE, generator=generator), torch.arange(count) % CLASSES


def score(proxy, network, images=None, labels=None):
    own, named = batch()
    images = own if images is None else images
    labels = named if labels is None else labels
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
    assert score(CASES["macs"], network) == count(ARCHITECTURE, SHAPE, CLASSES).macs


@every_proxy
def test_the_order_of_the_images_and_the_names_of_the_classes_do_not_matter(proxy):
    network = build_network(ARCHITECTURE, input_shape=SHAPE, classes=CLASSES, seed=0).double()
    images, labels = batch()
    order, names = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    renamed = copy.deepcopy(network)
    for tensor in renamed.classifier.parameters():
        tensor.data[names] = tensor.detach().clone()
    value = score(proxy, network, images.double(), labels)
    again = score(proxy, renamed, images.double()[order], names[labels[order]])
    assert again == pytest.approx(value, rel=1e-9)


def test_proxies_of_a_dead_network_are_finite_and_no_better_than_those_of_a_live_one():
    text = "|{0}~0|+|{0}~0|{0}~1|+|{0}~0|{0}~1|{0}~2|"
    dead, live = (
        build_network(
            NASBench201Architecture.from_string(text.format(name), 3, 4), input_shape=(3, 8, 8), classes=4
        )
        for name in ("none", "nor_conv_3x3")
    )
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 4
    for name, proxy in CASES.items():
        values = [score(proxy, network, images, labels) for network in (dead, live)]
        assert all(map(math.isfinite, values)), name
        if name not in ("input-gradient-norm", "grad-norm"):
            assert values[0] < values[1], name
    lowest = 6 * (math.log(1e5) - 1e5)
    assert score(CASES["jacob-cov"], dead, images) == pytest.approx(lowest, rel=1e-9)


def linear_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).double()


def test_snip_gradient_norm_and_input_gradient_of_a_linear_network_are_their_formulas():
    network, (images, labels) = linear_network(), batch()
    weight, images = network[1].weight.detach(), images.double()
    error = torch.softmax(network(images).detach(), 1) - torch.eye(CLASSES, dtype=torch.float64)[labels]
    gradient = torch.zeros_like(weight)  # of the mean loss: the mean over images of (softmax - one-hot) x^T
    for e, x in zip(error, images.flatten(1), strict=True):
        gradient += torch.outer(e, x) / len(images)
    total = sum(abs(float(w) * float(g)) for w, g in zip(weight.flatten(), gradient.flatten(), strict=True))
    assert score(CASES["snip"], network, images, labels) == pytest.approx(total, rel=1e-12)
    norm = math.sqrt(sum(float(g) ** 2 for g in gradient.flatten()))
    assert score(CASES["grad-norm"], network, images, labels) == pytest.approx(norm, rel=1e-12)
    norms = [sum(abs(float(v)) for v in weight.T @ e) for e in error]
    found = score(CASES["input-gradient-norm"], network, images, labels)
    assert found == pytest.approx(sum(norms) / len(norms), rel=1e-12)


def test_naswot_is_the_determinant_of_the_hamming_kernel_and_lowest_for_equal_images():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(inplace=True)
    ).double()
    images, _ = batch()
    x, codes = images.double().flatten(1), []
    for layer in (network[1], network[3]):
        x = layer(x).relu()
        codes.append(x > 0)
    code = torch.cat(codes, 1)
    kernel = [[float((a == b).sum()) for b in code] for a in code]
    sign, expected_ = torch.linalg.slogdet(torch.tensor(kernel, dtype=torch.float64))
    assert sign == 1
    assert score(CASES["naswot"], network, images.double()) == pytest.approx(float(expected_), rel=1e-9)
    equal = score(CASES["naswot"], network, images[:1].double().expand(6, -1, -1, -1))
    assert equal == pytest.approx(math.log(6 * 70) + 5 * math.log(1e-5), rel=1e-6)  # eigenvalues 6 N and 0
    with pytest.raises(ConfigError, match="naswot: the network has no ReLU"):
        score(CASES["naswot"], linear_network(), images.double())


def test_consistency_without_steps_is_four_a_layer_and_with_them_its_formula_for_a_linear_network():
    network, (images, labels) = linear_network(), batch()
    images = images.double()
    still = PROXIES.make("consistency", eps=0, beta=0)
    deep = nn.Sequential(network, nn.Linear(CLASSES, CLASSES).double())
    assert score(still, network, images, labels) == pytest.approx(4, rel=1e-12)
    assert score(still, deep, images, labels) == pytest.approx(8, rel=1e-12)
    proxy = PROXIES.make("consistency", eps=0.05, beta=0.2, lr=0.3)

    def error(weight, bias, x):
        hot = torch.eye(CLASSES, dtype=torch.float64)[labels]
        return torch.softmax(x.flatten(1) @ weight.T + bias, 1) - hot

    w, b = (tensor.detach() for tensor in network[1].parameters())
    e = error(w, b, images)
    g, h = e.T @ images.flatten(1) / 6, e.mean(0)
    w_, b_ = w + 0.2 * w.norm() * g / g.norm(), b + 0.2 * b.norm() * h / h.norm()
    attacked = (images + 0.05 * (error(w_, b_, images) @ w_).sign().reshape(images.shape)).clamp(0, 1)
    g_ = error(w_, b_, attacked).T @ attacked.flatten(1) / 6

    def cosine(u, v):
        return float(torch.nn.functional.cosine_similarity(u.flatten(), v.flatten(), dim=0))

    z, z_ = images.flatten(1) @ w.T + b, attacked.flatten(1) @ w_.T + b_
    expected_ = (1 + cosine(z, z_)) * (1 + cosine(w - 0.3 * g, w_ - 0.3 * g_)) * abs(cosine(g, g_))
    assert score(proxy, network, images, labels) == pytest.approx(expected_, rel=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_synflow_of_linear_layers_is_their_number_times_the_flow(layers):
    torch.manual_seed(0)
    matrices = [nn.Linear(64 if i == 0 else 5, 5, bias=False) for i in range(layers)]
    network = nn.Sequential(nn.Flatten(), *matrices)
    flow = torch.ones(64, dtype=torch.float64)
    for matrix in matrices:
        flow = matrix.weight.detach().double().abs() @ flow
    assert score(CASES["synflow"], network) == pytest.approx(math.log(layers * float(flow.sum())), rel=1e-12)
    nn.init.zeros_(matrices[0].weight)
    assert score(CASES["synflow"], network) == math.log(torch.finfo(torch.float64).tiny)


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

"""The contract of every activation, and what the four built-in ones compute."""

import pytest
import torch
import torch.nn.functional as F

from robust_nas.nets import build_network
from robust_nas.nets.cost import measured_cost
from robust_nas.operations import ACTIVATIONS
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture, count

FUNCTIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "softplus": F.softplus}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS.names())


def test_every_activation_is_in_the_suite():
    assert list(FUNCTIONS) == ACTIVATIONS.names()


@every_activation
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 5)])
def test_it_is_its_function_on_vectors_and_maps(name, shape):
    activation = ACTIVATIONS.get(name)
    assert list(activation.model_fields) == ["name"]
    module = activation.build(4)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    assert torch.equal(module.double()(x), FUNCTIONS[name](x))
    assert torch.equal(x, kept)  # it never works in place: states are shared
    assert activation.params(4) == sum(parameter.numel() for parameter in module.parameters())


@every_activation
@pytest.mark.parametrize(
    "architecture",
    [
        ResidualArchitecture(name="x", depths=(1, 1), widths=(3, 4)),
        MLPArchitecture(name="x", depth=2, width=3),
    ],
    ids=["residual", "mlp"],
)
def test_a_network_is_that_of_another_activation_but_for_the_function(name, architecture):
    one = architecture.model_copy(update={"activation": name})
    network = build_network(one, input_shape=(3, 6, 6), classes=3, seed=4)
    relu = build_network(architecture, input_shape=(3, 6, 6), classes=3, seed=4)
    own, other = network.state_dict(), relu.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[key], other[key]) for key in own)
    assert count(one, (3, 6, 6), 3) == measured_cost(network, (3, 6, 6))

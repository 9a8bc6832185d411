"""The contract of every activation, and what the built-in ones compute."""

import pytest
import torch
import torch.nn.functional as F

from robust_nas.errors import ArchitectureError
from robust_nas.nets import build_network
from robust_nas.nets.cost import measured_cost
from robust_nas.operations import ACTIVATIONS
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture, count, load_architecture


def attentive(x):
    """What Sparta is at first."""
    return x * torch.sigmoid(x)


FUNCTIONS = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "sparta": attentive,
    "sparta-1x1": attentive,
}
NB201 = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|"
ARCHITECTURES = {
    "residual": ResidualArchitecture(name="x", depths=(1, 2), widths=(3, 4)),
    "bottleneck": ResidualArchitecture(
        name="x", depths=(2, 1), widths=(3, 3), block="bottleneck", expansion=2
    ),
    "robust-res": ResidualArchitecture(
        name="x", stem=3, depths=(1, 2), widths=(16, 16), block="robust-res", scales=3, se_reduction=4
    ),
    "mlp": MLPArchitecture(name="x", depth=2, width=3),
    "cell": load_architecture("arnas").resized(cells=5, channels=2),
    "nas-bench-201": load_architecture(NB201).resized(cells=4, channels=2),
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS.names())


def test_every_activation_is_in_the_suite():
    assert list(FUNCTIONS) == ACTIVATIONS.names()


@every_activation
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 5)])
def test_it_is_its_function_on_vectors_and_maps(name, shape):
    activation = ACTIVATIONS.get(name)
    assert list(activation.model_fields) == ["name"]
    module = activation.build(4)
    assert activation.shared == getattr(module, "shared", False)
    assert activation.params(4) == sum(parameter.numel() for parameter in module.parameters())
    if activation.needs_maps and len(shape) == 2:
        return
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    assert torch.equal(module.double()(x), FUNCTIONS[name](x))
    assert torch.equal(x, kept)  # it never works in place: states are shared


@every_activation
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_network_is_that_of_another_activation_but_for_the_function(name, kind):
    architecture = ARCHITECTURES[kind]
    if kind == "mlp" and ACTIVATIONS.get(name).needs_maps:
        with pytest.raises(
            ArchitectureError, match=f"activation: got '{name}', which looks at the pixels of maps"
        ):
            architecture.with_options(activation=name)
        return
    one = architecture.with_options(activation=name)
    network = build_network(one, input_shape=(3, 7, 6), classes=3, seed=4)
    relu = build_network(architecture, input_shape=(3, 7, 6), classes=3, seed=4)
    own, other = network.state_dict(), relu.state_dict()
    shared = {key for key in own if key.startswith("shared_activations.")}
    assert {key.split(".")[1] for key in shared} == set(one.shared_activations())
    assert [key for key in own if key not in shared] == list(other)
    assert all(torch.equal(own[key], other[key]) for key in other)
    assert count(one, (3, 7, 6), 3) == measured_cost(network, (3, 7, 6))
    x = torch.rand(4, 3, 7, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network.eval()(x), relu.eval()(x)) == (name == "relu")

"""MLPs: equal to matrix products, their initialisations, and the NTK form's equality at the start and slower steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from robust_nas.errors import ArchitectureError
from robust_nas.nets import MLPNetwork, build_network
from robust_nas.spaces import MLPArchitecture

SHAPE = (2, 4, 3)
SMALL = MLPArchitecture(name="small", depth=3, width=8)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(**changes: object) -> MLPNetwork:
    architecture = MLPArchitecture(**{**SMALL.model_dump(), **changes})
    network = build_network(
        architecture, input_shape=SHAPE, classes=5, mean=(0.1, 0.2), std=(0.5, 2.0), seed=3
    )
    assert isinstance(network, MLPNetwork)
    return network.eval()


def test_the_network_is_matrix_products_and_activations_on_the_flattened_image() -> None:
    network = made(activation="silu")
    x = images(6, *SHAPE)
    state = network.state_dict()
    hidden = ((x - torch.tensor([0.1, 0.2]).view(2, 1, 1)) / torch.tensor([0.5, 2.0]).view(2, 1, 1)).flatten(
        1
    )
    for layer in ("hidden.0", "hidden.1", "hidden.2"):
        hidden = F.silu(hidden @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
    expected = hidden @ state["classifier.weight"].T + state["classifier.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected)


def test_channels_last_images_are_read_in_the_same_order() -> None:
    x = images(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(made()(x.contiguous(memory_format=torch.channels_last)), made()(x))


@pytest.mark.parametrize(
    ("initialisation", "hidden", "head"), [("he-fan-in", 2, 1), ("lecun", 1, 1), ("ntk", None, None)]
)
def test_weights_start_with_the_variance_of_their_initialisation(
    initialisation: str, hidden: int | None, head: int | None
) -> None:
    architecture = MLPArchitecture(name="x", depth=2, width=200, initialisation=initialisation)
    network = build_network(architecture, classes=100)
    for layer, gain in [(module, hidden) for module in network.hidden] + [(network.classifier, head)]:
        expected = 1.0 if gain is None else (gain / layer.in_features) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)
        assert not layer.bias.detach().any()


def test_the_ntk_form_starts_as_he_and_moves_less_by_its_factor_squared() -> None:
    ntk, he = made(initialisation="ntk").double(), made(initialisation="he-fan-in").double()
    x = images(6, *SHAPE).double()
    close = {"rtol": 1e-5, "atol": 1e-6}  # both were drawn in float32
    torch.testing.assert_close(ntk(x), he(x), **close)
    for network in (ntk, he):
        network(x).square().sum().backward()
    for scaled, plain in zip((*ntk.hidden, ntk.classifier), (*he.hidden, he.classifier), strict=True):
        step = scaled.scale * scaled.weight.grad  # of the product that the forward pass uses
        torch.testing.assert_close(step, scaled.scale**2 * plain.weight.grad, **close)
        torch.testing.assert_close(scaled.bias.grad, plain.bias.grad, **close)


@pytest.mark.parametrize("initialisation", ["lecun", "ntk"])
def test_the_network_can_be_traced(initialisation: str) -> None:
    network = made(initialisation=initialisation)
    x = images(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(network)(x), network(x))


def test_what_cell_networks_alone_have_is_refused() -> None:
    for choice in ({"auxiliary": True}, {"affine": False}):
        with pytest.raises(
            ArchitectureError, match=r"small: got auxiliary=.*an MLP is built with auxiliary=False"
        ):
            build_network(SMALL, **choice)

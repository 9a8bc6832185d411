"""Networks that are cut at a layer: the head of the encoder is the network, wherever it says that it can be cut."""

import pytest
import torch
from torch import nn

from robust_nas.errors import ConfigError
from robust_nas.layers.cuts import Cut, latent_layers
from robust_nas.nets import build_network
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture, Size, load_space, sample

SHAPE = (3, 9, 8)
NETWORKS = {
    "cells": sample(load_space("dsara"), 1, size=Size(cells=3, channels=2)),
    "nas-bench-201": sample(load_space("nas-bench-201"), 1, size=Size(cells=3, channels=2)),
    "residual": ResidualArchitecture(name="x", stem=2, depths=(1, 1), widths=(4, 6)),
    "mlp": MLPArchitecture(name="x", depth=2, width=5),
}
LAYERS = {
    "cells": ["stem", "cells.2", "features"],
    "nas-bench-201": ["stem", "cells.0", "cells.1", "cells.2", "features"],
    "residual": ["stem", "stages.0", "stages.1", "features"],
    "mlp": ["activations.0", "activations.1", "features"],
}


def built(name):
    return build_network(NETWORKS[name], input_shape=SHAPE, classes=4).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_head_of_its_encoder_at_every_layer_that_it_names(name):
    network = built(name)
    assert latent_layers(network) == LAYERS[name]
    x, other = torch.rand(2, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x)
        assert not torch.allclose(network(other), expected)
    for layer in LAYERS[name]:
        cut = Cut(network, layer)
        assert cut.checked_classes(SHAPE) == 4
        z, logits = cut.encode(x)
        assert torch.equal(logits, expected)
        torch.testing.assert_close(cut.head(other, z), expected)
    assert Cut(network).layer == "features"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_the_features_of_a_module_are_the_input_of_its_last_linear_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(216, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    x = torch.rand(2, *SHAPE)
    z, _ = Cut(network).encode(x)
    assert torch.equal(z, network[:3](x))
    assert Cut(network, "0").checked_classes(SHAPE) == 4


def test_layers_that_are_not_there_or_no_cut_are_refused_with_those_that_are():
    network = built("cells")
    known = "stem, cells.2, features"
    with pytest.raises(ConfigError, match=rf"loss.layer: got 'cells.9'; CellNetwork has {known}"):
        Cut(network, "cells.9", "loss.layer")
    with pytest.raises(
        ConfigError, match=rf"cells.0: the network cannot be cut there, what follows.*{known}"
    ):
        Cut(network, "cells.0").checked_classes(SHAPE)
    twice = nn.ReLU()
    shared = nn.Sequential(nn.Flatten(), twice, nn.Linear(216, 6), twice, nn.Linear(6, 4)).eval()
    with pytest.raises(ConfigError, match="1: the network cannot be cut there, a forward pass runs it 2"):
        Cut(shared, "1").checked_classes(SHAPE)
    with pytest.raises(ConfigError, match=r"got 'features'; Sequential has 0"):
        Cut(nn.Sequential(nn.Flatten()))

"""Small networks that compression tests share."""

import torch
from torch import nn

import robust_nas

SHAPE = (2, 12, 10)
ARCHITECTURE = robust_nas.ResidualArchitecture(name="small", stem=6, depths=(1, 1), widths=(8, 12))


def residual(seed: int = 0) -> nn.Module:
    """A residual network with statistics that are not the fresh ones, in eval mode, float64."""
    network = robust_nas.build_network(ARCHITECTURE, input_shape=SHAPE, classes=4, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.train()(torch.rand(16, *SHAPE, generator=generator, dtype=torch.float64))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(generator=generator)
    return network.eval()


def images(count: int = 4, seed: int = 0) -> torch.Tensor:
    """Float64 images for `residual`."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

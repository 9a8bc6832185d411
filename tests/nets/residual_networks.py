"""A small residual network, as it is after a training."""

import torch
from torch import Tensor, nn

from robust_nas.nets import ResidualNetwork, build_network
from robust_nas.spaces import ResidualArchitecture

SHAPE = (2, 9, 8)
SMALL = ResidualArchitecture(name="small", stem=3, depths=(2, 1, 2), widths=(3, 4, 4))
MEAN, STD = (0.1, 1 / 3), (0.5, 8 / 255)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def trained(
    architecture: ResidualArchitecture = SMALL, shape: tuple[int, int, int] = SHAPE
) -> ResidualNetwork:
    """A network whose statistics, scales and shifts are not the fresh ones, in eval mode."""
    network = build_network(
        architecture,
        input_shape=shape,
        classes=3,
        mean=MEAN[: shape[0]],
        std=STD[: shape[0]],
        seed=5,
    )
    assert isinstance(network, ResidualNetwork)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
        network.train()(images(8, *shape))
    return network.eval()

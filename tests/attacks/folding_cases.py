"""Networks with batch norms that have statistics of their own, and the comparison of a copy with its model."""

import torch
from attacked import CLASSES, generator
from torch import nn

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def settled(model, seed=0):
    """The model in eval mode and float64, every batch norm with statistics and scales of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 2.0)
                if module.affine:
                    nn.init.uniform_(module.weight, -1.5, 1.5)
                    nn.init.normal_(module.bias)
    return model.double().eval()


def images(count=4, channels=3, side=8):
    return torch.rand(count, channels, side, side, generator=generator(), dtype=torch.float64)


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def head(channels):
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def chain(*layers, channels=8):
    return nn.Sequential(*layers, head(channels))


def assert_same_function(first, second, x):
    gradients, logits = [], []
    for model in (first, second):
        given = x.clone().requires_grad_()
        logits.append(model(given))
        gradients.append(torch.autograd.grad(logits[-1].square().sum(), given)[0])
    torch.testing.assert_close(logits[0], logits[1], **EXACT)
    torch.testing.assert_close(gradients[0], gradients[1], **EXACT)

"""The digits, a small network for them, and how it is trained, against an attacker or not."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.data import DataOptions, load_dataset

EPS = 0.15


@dataclasses.dataclass(frozen=True)
class Images:
    """A stand-in for the images of `robust_nas.data`."""

    pixels: Tensor
    labels: Tensor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def digits():
    """The images of scikit-learn, as `robust_nas` splits them."""
    return load_dataset(DataOptions(name="digits"), seed=0)


def timeless(tree):
    """A tree of `evaluation.json` without what takes time."""
    attacks = [{**attack, "seconds": 0} for attack in tree["attacks"]]
    return {**tree, "seconds": 0, "findings_seconds": 0, "attacks": attacks}


def conv_net(channels=(16, 32), seed=0):
    """Two convolutions and a linear layer, with the weights of the seed."""
    first, second = channels
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * second, 10),
        )


def trained(images, *, attack=None, epochs, seed=0, model=None):
    """A network in eval mode, trained on the images as they are or as the attack leaves them."""
    model = model or conv_net(seed=seed)
    draws = generator(seed)
    x, y = images.pixels.float() / 255, images.labels
    rate, size = 0.05, 64
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(y) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4 * rate, total_steps=steps)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(epochs):
            for batch in torch.randperm(len(y), generator=draws).split(size)[: len(y) // size]:
                model.train()
                inputs = x[batch] if attack is None else attack(model, x[batch], y[batch], draws)
                optimiser.zero_grad()
                F.cross_entropy(model(inputs), y[batch]).backward()
                optimiser.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()

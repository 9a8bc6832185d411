"""A network that is trained, adversarially and in seconds, so that verdicts on it mean something."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

EPS = 0.1  # Linf, that it is trained against


@pytest.fixture(scope="session")
def digits_net():
    """A small convolutional network in eval mode, and 80 images and labels that it never saw.

    Single-step adversarial training, written out here: it shares no code with what is tested.
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = torch.tensor(digits.images[order] / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target[order])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Flatten(), nn.Linear(96, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(8):
            for rows in torch.randperm(1500).split(50):
                x = images[rows] + torch.empty_like(images[rows]).uniform_(-EPS, EPS)
                x = x.clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels[rows]), x)
                x = x.detach() + 1.25 * EPS * gradient.sign()
                x = x.clamp(images[rows] - EPS, images[rows] + EPS).clamp(0, 1)
                optimizer.zero_grad()
                F.cross_entropy(model(x), labels[rows]).backward()
                optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval(), images[1500:1580], labels[1500:1580]

"""A network that is trained, so that verdicts on it mean something, and the model folder of the transfer attacks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attacked import CLASSES, SHAPE, digits_network
from sklearn.datasets import load_digits
from suite import LADDER, SURROGATE

from robust_nas.attacks import LatentFit, fit_ladder, official_autoattack
from robust_nas.data import Images
from robust_nas.nets import ModelDescription, build_network, inference_state, save_model
from robust_nas.spaces import ResidualArchitecture

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
        model = digits_network()
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


@pytest.fixture
def few_iterations(monkeypatch):
    """The authors' package makes 10 iterations from one start, where the length of its attacks decides nothing."""

    def shortened(*arguments):
        official = made(*arguments)
        for attack in (official.apgd, official.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = official.fab.n_iter = 10
            attack.n_restarts = 1
        return official

    made = official_autoattack._official
    monkeypatch.setattr(official_autoattack, "_official", shortened)


@pytest.fixture(scope="session")
def surrogate():
    """The model folder that the transfer attacks name, and LADDER's parts of it."""
    architecture = ResidualArchitecture(
        name="surrogate", stem=4, depths=(1,), widths=(4,)
    )  # read again for every batch
    description = ModelDescription(
        input_shape=SHAPE, class_names=tuple("abcde"), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3)
    )
    network = build_network(
        architecture,
        input_shape=SHAPE,
        classes=CLASSES,
        mean=description.mean,
        std=description.std,
        seed=1,
    )
    save_model(Path(SURROGATE), architecture, inference_state(network), description)
    pixels = torch.randint(256, (60, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options = LatentFit(decoder_width=4, decoder_epochs=1)
    fit_ladder(SURROGATE, Images(pixels, torch.arange(60) % CLASSES), LADDER, options, figure=False)
    return Path(SURROGATE)

"""What the tests of the attacks share: models whose worst case is known, a small network, and its state."""

import math
from functools import cache

import torch
from torch import nn

SHAPE = (3, 8, 8)
CLASSES = 5


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def batch(count=6, low=0.0, high=1.0, seed=1, classes=CLASSES):
    images = torch.rand(count, *SHAPE, generator=generator(seed)) * (high - low) + low
    return images, torch.randint(classes, (count,), generator=generator(seed + 1))


def linear(classes, seed=3, scale=1.0):
    """Logits W x + b, with W `[K, D]`, of numbers of that size, returned beside the model."""
    layer = nn.Linear(math.prod(SHAPE), classes)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.randn(layer.weight.shape, generator=generator(seed)))
        layer.bias.copy_(torch.randn(classes, generator=generator(seed + 1)))
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


def two_of_four(seed=3):
    """Four classes, of which 2 and 3 are far behind and constant: every loss falls and rises with `a x` alone.

    Logits a x + b, -a x - b, -100, -130 with `a` `[D]` returned beside the model.
    """
    layer = nn.Linear(math.prod(SHAPE), 4)
    a = torch.randn(math.prod(SHAPE), generator=generator(seed)) / 10
    offset = -0.5 * a.sum()  # the middle of the box is undecided
    with torch.no_grad():
        layer.weight.copy_(torch.stack([a, -a, 0 * a, 0 * a]))
        layer.bias.copy_(torch.stack([offset, -offset, torch.tensor(-100.0), torch.tensor(-130.0)]))
    return nn.Sequential(nn.Flatten(), layer), a


def digits_network():
    """The untrained network of the fixture `digits_net`, for 8x8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


def certificate(model, weight, images, labels, p):
    """How far an L_q adversary must go at least, exactly where the box is out of reach, `[B]`; 1/p + 1/q = 1."""
    with torch.no_grad():
        logits = model(images)
    gaps = logits.gather(1, labels[:, None]) - logits
    away = gaps / (weight[labels][:, None] - weight[None]).norm(p=p, dim=2)
    return away.scatter(1, labels[:, None], math.inf).min(1).values


def conv_net(classes=CLASSES, seed=0):
    """A small network with BatchNorm and dropout, in a mix of modes."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(
            seed
        )  # `torch.manual_seed` writes down the stack for other devices
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, classes),
        )  # fmt: skip
        for norm in (model[1], model[5]):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    model.train()
    model[5].eval()
    model[0].bias.requires_grad_(requires_grad=False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    return model


def undecided_net():
    """The same with biases such that random images are answered with several classes: attacks without scores start."""
    model = conv_net()
    with torch.no_grad():
        model[8].bias -= _mean_logits()
    return model


@cache
def _mean_logits():
    return logits_of(conv_net(), batch(count=64, seed=20)[0]).mean(0)


def logits_of(model, images):
    """The model's logits in eval mode; the model comes back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            return model.eval()(images)
    finally:
        for module, mode in modes:
            module.training = mode


def answered(model, images):
    """The model's own answers as labels, but for the last image: most are worth attacking, one is misclassified."""
    labels = logits_of(model, images).argmax(1)
    labels[-1] = (labels[-1] + 1) % CLASSES
    return labels


def state(model):
    """Everything that an attack must leave as it was."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        {key: value.clone() for key, value in model.state_dict().items()},
        [getattr(module, "track_running_stats", None) for module in model.modules()],
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert before[1] == after[1]
    for first, second in zip(before[2], after[2], strict=True):
        assert (first is None and second is None) or torch.equal(first, second)
    assert all(torch.equal(before[3][key], after[3][key]) for key in before[3])
    assert before[4] == after[4]


def distance(norm, delta):
    """How far each example moved, `[B]`, in float64."""
    return delta.flatten(1).double().norm(p={"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)

"""Alphas: equal to the loop over images and classes, whatever the layer; and what they bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.attacks import PGD
from robust_nas.compression.alpha import estimate_alpha
from robust_nas.errors import CompressionError


class Net(nn.Module):
    """Strided, dilated, reflected, shared and in-place: whatever a user's network may do."""

    def __init__(self, classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding=(1, 0), padding_mode="reflect", bias=False)
        self.shared = nn.Conv2d(4, 4, 2, padding="same", dilation=2)
        self.last = nn.Linear(4, classes)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.norm(self.a(x)), inplace=True)
        x = nn.functional.relu(self.b(x), inplace=True)
        x = self.shared(self.shared(x).relu()).relu()
        return self.scale * self.last(x.mean((2, 3)))


NAMES = ["a", "b", "shared"]


def network(seed: int = 0, **more: object) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Net(**more).double()
        made.train()(torch.rand(16, 2, 7, 6, dtype=torch.float64))
    return made.eval()


def images(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 2, 7, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(
    model: nn.Module, x: torch.Tensor, competitors: int | None = None, floor: float = 0.0
) -> dict[str, torch.Tensor]:
    """The formula, image by image and class by class."""
    modules = dict(model.named_modules())
    found = {name: torch.zeros(modules[name].in_channels, dtype=torch.float64) for name in NAMES}
    with torch.no_grad():
        two = model(x).topk(2).values
    least = floor * float((two[:, 0] - two[:, 1]).median())
    for image in x:
        logits = model(image[None])[0]
        said = int(logits.argmax())
        rest = sorted((j for j in range(len(logits)) if j != said), key=lambda j: -float(logits[j].detach()))
        for j in rest[:competitors]:
            margin = logits[said] - logits[j]
            weights = [modules[name].weight for name in NAMES]
            grads = torch.autograd.grad(margin, weights, retain_graph=True)
            for name, grad in zip(NAMES, grads, strict=True):
                found[name] += grad.square().sum((0, 2, 3)) / (2 * max(float(margin.detach()), least) ** 2)
    return {name: total / (len(x) * modules[name].weight[:, 0].numel()) for name, total in found.items()}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("competitors", "floor"), [(None, 0.0), (2, 0.0), (None, 3.0)])
def test_the_batch_equals_the_loop(memory, competitors, floor):
    model, x = network(), images()
    expected = by_hand(model, x, competitors, floor)
    for size in (1, 4, 64):
        found = estimate_alpha(
            model.to(memory_format=memory),
            NAMES,
            x.contiguous(memory_format=memory),
            competitors=competitors,
            margin_floor=floor,
            batch_size=size,
        )
        for name in NAMES:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=0)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_scaling_the_logits_changes_nothing(seed, scale):
    x = images(4, seed)
    plain, scaled = (
        estimate_alpha(network(seed, scale=factor), NAMES, x, margin_floor=0.1) for factor in (1.0, scale)
    )
    for name in NAMES:
        torch.testing.assert_close(plain[name], scaled[name], rtol=1e-8, atol=0)


def test_sketches_are_the_same_in_expectation():
    model, x = network(), images()
    exact = estimate_alpha(model, NAMES, x)
    assert all(torch.equal(exact[n], estimate_alpha(model, NAMES, x, sketches=4)[n]) for n in NAMES)
    runs = [
        estimate_alpha(model, NAMES, x, sketches=1, generator=torch.Generator().manual_seed(seed))
        for seed in range(300)
    ]
    for name in NAMES:
        found = torch.stack([run[name] for run in runs])
        error = found.std(0) / 300**0.5
        assert ((found.mean(0) - exact[name]).abs() <= 4 * error).all()
        assert (error > 0).all()


def test_the_network_is_left_as_it_was():
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    estimate_alpha(model, NAMES, images())
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks and "forward" not in vars(module) for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_attacked_images_are_attacked_against_what_the_network_says():
    model, x = network().float(), images().float()
    attack = PGD(eps=0.1, steps=3)
    generator = torch.Generator().manual_seed(7)
    found = estimate_alpha(model, NAMES, x, attack=attack, generator=generator, batch_size=64)
    said = model(x).argmax(1)
    attacked = attack(model, x, said, torch.Generator().manual_seed(7))
    expected = estimate_alpha(model, NAMES, attacked, batch_size=64)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])


def test_noise_on_the_weights_changes_no_more_predictions_than_the_bound_says():
    model, x = network(3), images(200, 3)
    with torch.no_grad():  # so that different images are of different classes
        model.last.bias -= model(x).mean(0)
    alpha = estimate_alpha(model, NAMES, x)
    modules = dict(model.named_modules())
    energy = {name: 3e-7 * modules[name].weight.detach().square().sum((0, 2, 3)) for name in NAMES}
    bound = float(sum((alpha[name] * energy[name]).sum() for name in NAMES))
    said = model(x).argmax(1)
    kept = {name: modules[name].weight.detach().clone() for name in NAMES}
    generator = torch.Generator().manual_seed(0)
    flips = []
    with torch.no_grad():
        for _ in range(40):
            for name in NAMES:
                size = (energy[name] / kept[name][:, 0].numel()).sqrt()[None, :, None, None]
                noise = torch.randn(kept[name].shape, generator=generator, dtype=torch.float64)
                modules[name].weight.copy_(kept[name] + size * noise)
            flips.append(float((model(x).argmax(1) != said).double().mean()))
    assert 0 < sum(flips) / len(flips) <= bound < 1


def test_what_cannot_be_measured_is_told():
    model, x = network(), images()
    with pytest.raises(CompressionError, match="last: alphas are defined for convolutions"):
        estimate_alpha(model, ["last"], x)
    with pytest.raises(CompressionError, match="at least one convolution"):
        estimate_alpha(model, [], x)
    with pytest.raises(CompressionError, match="and one image"):
        estimate_alpha(model, NAMES, x[:0])
    with torch.no_grad():
        model.last.weight.zero_()
        model.last.bias.zero_()
    with pytest.raises(CompressionError, match="margin_floor above 0"):
        estimate_alpha(model, NAMES, x)
    with torch.no_grad():
        model.last.bias.fill_(torch.nan)
    with pytest.raises(CompressionError, match="finite logits"):
        estimate_alpha(model, NAMES, x)

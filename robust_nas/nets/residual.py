"""A pre-activation residual network: stem, stages of blocks, batch norm, pooling, linear classifier.

    basic:       block(x) = shortcut + conv3x3(act(bn(conv3x3(a)))),  a = act(bn(x))
    bottleneck:  block(x) = shortcut + conv1x1(act(bn(conv3x3(act(bn(conv1x1(a)))))))
    robust-res:  block(x) = shortcut + r + SE(bn(r)),  r = conv1x1(parts(act(bn(conv1x1(a)))))
    shortcut = conv1x1(a) where channels change or the stride is not 1, else x

Basic is the block of wide residual networks (Zagoruyko and Komodakis, 2016), without dropout; bottleneck that of
pre-activation ResNets (He et al., 2016); robust-res that of Huang, Lu, Deb and Boddeti (CVPR 2023). Convolutions have
no bias. The usual WRN code has a shortcut convolution where channels change alone, and fails in a strided stage that
keeps them.
Initialisation as in the usual code: convolutions by He's normal over the fan-out, unless another is chosen; linear
layers as torch starts them, the classifier's bias zero.

Images are float `[B, C, H, W]` in 0..1. This file needs torch, layers and `ACTIVATIONS` alone: the
plain-Python export carries their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.normalise import Normalise
from robust_nas.layers.shared_activations import ActivationMaker
from robust_nas.operations import ACTIVATIONS

Activation = Callable[[int], nn.Module]  # makes the activation of some channels


class BlockPlan(NamedTuple):
    """The kind of the blocks, and the numbers of bottleneck (the first one) and of robust-res blocks."""

    kind: str = "basic"
    expansion: int = 1
    cardinality: int = 1
    scales: int = 1
    base_width: int = 160
    se_reduction: int = 1
    preactivated: bool = True


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Conv2d | None:
    """Return the convolution of a block's shortcut, without its stride; None where the shortcut is the input."""
    return None if c_in == c_out and stride == 1 else nn.Conv2d(c_in, c_out, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and activation, added to the shortcut."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, activation: Activation, entering: Activation | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.stride = stride
        self.shortcut = shortcut(c_in, c_out, stride)
        self.activation1, self.activation2 = (entering or activation)(c_in), activation(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, c_out, ceil(H/stride), ceil(W/stride)]` of `[B, c_in, H, W]`."""
        active = self.activation1(self.norm1(x))
        # The stride is taken before the 1x1 convolution: a strided one on fewer than 16 channels in channels-last order
        # writes beyond its memory on a CPU (oneDNN issue 6035). So in the blocks below.
        shortcut = x if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        residual: Tensor = self.conv2(self.activation2(self.norm2(self.conv1(active))))
        return shortcut + residual


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind batch norm and activation, added to the shortcut."""

    def __init__(
        self,
        c_in: int,
        width: int,
        stride: int,
        expansion: int,
        activation: Activation,
        entering: Activation | None = None,
    ) -> None:
        super().__init__()
        c_out = expansion * width
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.stride = stride
        self.shortcut = shortcut(c_in, c_out, stride)
        self.activation1, self.activation2 = (entering or activation)(c_in), activation(width)
        self.activation3 = activation(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, expansion * width, ceil(H/stride), ceil(W/stride)]` of `[B, c_in, H, W]`."""
        active = self.activation1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        hidden = self.activation2(self.norm2(self.conv1(active)))
        residual: Tensor = self.conv3(self.activation3(self.norm3(self.conv2(hidden))))
        return shortcut + residual


class SqueezeExcitation(nn.Module):
    """Channels weighted by gates in 0..1 that two linear layers make of their means (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, channels, H, W]` of the same shape."""
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * gates[:, :, None, None]


class RobustResBlock(nn.Module):
    """A bottleneck whose 3x3 convolution is grouped and split by channels into `scales` parts, with a second residual.

    The parts follow one another: a convolution sees its part of the channels and the output of the part before
    (a strided one its part alone), the last part passes by (pooled where the block strides). The residual is added
    once as it is and once behind batch norm and squeeze-and-excitation.
    """

    def __init__(
        self,
        c_in: int,
        width: int,
        stride: int,
        plan: BlockPlan,
        activation: Activation,
        entering: Activation | None = None,
    ) -> None:
        super().__init__()
        c_out = plan.expansion * width
        part = width * plan.base_width // 160 * plan.cardinality
        convolved = max(plan.scales - 1, 1)
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, part * plan.scales, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(part * plan.scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, stride=stride, padding=1, groups=plan.cardinality, bias=False)
            for _ in range(convolved)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(part) for _ in range(convolved))
        self.conv3 = nn.Conv2d(part * plan.scales, c_out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(c_out)
        self.se = SqueezeExcitation(c_out, c_out // plan.se_reduction)
        self.pool = nn.Identity() if stride == 1 else nn.AvgPool2d(3, stride, padding=1)
        self.stride, self.scales, self.preactivated = stride, plan.scales, plan.preactivated
        self.shortcut = shortcut(c_in, c_out, stride)
        self.activation1 = (entering or activation)(c_in)
        self.activation2 = activation(part * plan.scales)
        self.activations = nn.ModuleList(activation(part) for _ in range(convolved))

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, expansion * width, ceil(H/stride), ceil(W/stride)]` of `[B, c_in, H, W]`."""
        active = self.activation1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        hidden = self.activation2(self.norm2(self.conv1(active if self.preactivated else x)))
        parts = torch.chunk(hidden, self.scales, 1)
        outputs: list[Tensor] = []
        layers = zip(self.convs, self.norms, self.activations, strict=True)
        for index, (convolution, norm, activation) in enumerate(layers):
            alone = index == 0 or self.stride > 1
            part = parts[index] if alone else parts[index] + outputs[-1]
            outputs.append(activation(norm(convolution(part))))
        if self.scales > 1:
            outputs.append(self.pool(parts[self.scales - 1]))
        residual: Tensor = self.conv3(torch.cat(outputs, 1))
        refined: Tensor = self.se(self.norm3(residual))
        return shortcut + residual + refined


def make_block(
    plan: BlockPlan, c_in: int, width: int, stride: int, activation: Activation, entering: Activation
) -> nn.Module:
    """Return a block of the planned kind; `entering` makes the activation of its input."""
    if plan.kind == "basic":
        return BasicBlock(c_in, width, stride, activation, entering)
    if plan.kind == "bottleneck":
        return BottleneckBlock(c_in, width, stride, plan.expansion, activation, entering)
    return RobustResBlock(c_in, width, stride, plan, activation, entering)


class ResidualNetwork(nn.Module):
    """Stem, stages, pooling, classifier; `forward` gives logits `[B, classes]`."""

    def __init__(
        self,
        stages: Iterable[tuple[int, int, int]],  # blocks, their channels, stride of the first one
        stem: int,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        block: Mapping[str, Any],  # the numbers of a `BlockPlan`
        activation: str = "relu",
        initialisation: str = "he-fan-out",
    ) -> None:
        super().__init__()
        block_plan = BlockPlan(**block)
        make = ActivationMaker(ACTIVATIONS.get(activation).build)
        self.normalise = Normalise(mean, std)
        self.stem = nn.Conv2d(len(mean), stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        channels = stem
        for number, (depth, width, stride) in enumerate(stages, 1):
            own = partial(make, number)
            entering = partial(make, max(number - 1, 1))  # of the map that the stage before made
            stage = nn.Sequential()
            for index in range(depth):
                stage.append(
                    make_block(
                        block_plan, channels, width, 1 if index else stride, own, own if index else entering
                    )
                )
                channels = block_plan.expansion * width
            self.stages.append(stage)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = make(len(self.stages), channels)
        make.register(self)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight,
                    mode="fan_out" if initialisation == "he-fan-out" else "fan_in",
                    nonlinearity="linear" if initialisation == "lecun" else "relu",
                )
        nn.init.zeros_(self.classifier.bias)

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the output `[B, c, h, w]` of every stage for images `[B, C, H, W]` in 0..1, and the logits."""
        x = self.stem(self.normalise(x))
        outputs: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        features = self.activation(self.norm(x)).mean((2, 3))
        return [*outputs, self.classifier(features)]

    def mixing_points(self) -> list[list[tuple[nn.Module, int]]]:
        """Return for every stage the module behind it, and the number of the input that is the stage's output."""
        return [[(module, 0)] for module in (*list(self.stages)[1:], self.norm)]

    def latent_layers(self) -> list[str]:
        """Return the names of the layers at which the network can be cut (`layers/cuts.py`), the default last."""
        return ["stem", *(f"stages.{number}" for number in range(len(self.stages))), "features"]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` of images `[B, C, H, W]` in 0..1."""
        return self.staged(x)[-1]

"""Layers in fewer multiply-adds: generalised depthwise-separable, Tucker-2 and low-rank, in the place of dense ones.

    GDWS:      W_c ~ P_c D_c, channel c filtered by g_c kernels of its own, then a 1x1 convolution; G = sum_c g_c
    Tucker-2:  W ~ A . core . B, 1x1 convolution C -> r_in, kernel on r_in -> r_out, 1x1 convolution r_out -> M
    low-rank:  W ~ A B, a 1x1 convolution or a linear layer in two

Kernels per layer, weights W [M, C, K1, K2]: GDWS G (K1 K2 + M), Tucker-2 C r_in + r_in r_out K1 K2 + r_out M,
low-rank r (C + M); the same numbers are the multiply-adds of an output pixel (where nothing strides). GDWS is Dbouk and
Shanbhag's (NeurIPS 2021). How the weights are found stands in `compression/`; a stored network is rebuilt from names
and numbers alone. This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn


class LayerForm(NamedTuple):
    """What stands in the place of a layer: its dotted name, the form, and the form's numbers.

    `gdws`: g of every input channel; `tucker-2`: r_in, r_out; `low-rank`: r; `biased`, a convolution that has a bias
    now, and `identity`, the batch norm that went into it: none.
    """

    name: str
    form: str
    numbers: tuple[int, ...] = ()


def gather_channels(x: Tensor, index: Tensor) -> Tensor:
    """The channels `[B, len(index), H, W]` that `index` names, in the memory order of `x`."""
    # index_select and indexing give channels-first memory whatever they take, and the layers behind pay for it.
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels).index_select(1, index)
        return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
    return x.index_select(1, index)


torch.fx.wrap("gather_channels")  # the choice is made when it runs, not when it is traced


def _settings(layer: nn.Module) -> dict[str, Any]:
    """Device and type of a layer's weights."""
    weight: Any = layer.weight
    return {"device": weight.device, "dtype": weight.dtype}


def _window(layer: nn.Conv2d) -> dict[str, Any]:
    """What a convolution's kernel does, for the factor that takes it over."""
    return {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }


class GDWSConv2d(nn.Module):
    """A generalised depthwise-separable convolution: channel c filtered by `g[c]` kernels, then mixed by a 1x1 one.

    Stride, padding and dilation are the depthwise stage's, the bias is the pointwise one's. Where every channel has the
    same number of kernels, they stand in blocks of one kernel a channel, and nothing is gathered.
    """

    index: Tensor

    def __init__(self, like: nn.Conv2d, g: Sequence[int]) -> None:
        """Fresh weights in the place of `like`. Raises `ValueError` for a grouped one, or a g that does not fit."""
        super().__init__()
        self.g = tuple(g)
        if like.groups != 1:
            raise ValueError(
                f"a convolution of {like.groups} groups cannot be depthwise-separable in this form"
            )
        most = min(like.out_channels, like.kernel_size[0] * like.kernel_size[1])
        if len(self.g) != like.in_channels or not 0 <= min(self.g) <= max(self.g) <= most or not any(self.g):
            raise ValueError(
                f"g has {len(self.g)} numbers from {min(self.g, default=0)} to {max(self.g, default=0)}; "
                f"{like.in_channels} numbers from 0 to {most}, not all 0, are needed"
            )
        settings, window = _settings(like), _window(like)
        even = len(set(self.g)) == 1
        sizes = [like.in_channels] * self.g[0] if even else [sum(self.g)]
        self.depthwise = nn.ModuleList(
            nn.Conv2d(size, size, groups=size, bias=False, **window, **settings) for size in sizes
        )
        self.pointwise = nn.Conv2d(sum(self.g), like.out_channels, 1, bias=like.bias is not None, **settings)
        index = torch.tensor(
            [channel for channel, kernels in enumerate(self.g) for _ in range(kernels)],
            device=like.weight.device,
        )
        self.register_buffer("index", index, persistent=False)
        self.even = even

    def fill(self, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None) -> None:
        """Takes the factors D `[G, K1, K2]` and P `[M, G]`, both sorted by input channel, and the bias `[M]`."""
        # Sorted by channel it is c0 c0 c1 c1 ...; in blocks c0 c1 ... c0 c1 ...
        if self.even:
            order = torch.arange(len(self.index)).view(len(self.g), -1).T.flatten().to(depthwise.device)
            depthwise, pointwise = depthwise[order], pointwise[:, order]
        with torch.no_grad():
            start = 0
            for block in self.depthwise:
                weight: Any = block.weight
                weight.copy_(depthwise[start : start + len(weight), None])
                start += len(weight)
            self.pointwise.weight.copy_(pointwise[:, :, None, None])
            if bias is not None and self.pointwise.bias is not None:
                self.pointwise.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, M, H', W']`."""
        if self.even:
            maps: list[Tensor] = [block(x) for block in self.depthwise]
            mixed: Tensor = self.pointwise(maps[0] if len(maps) == 1 else torch.cat(maps, 1))
            return mixed
        return self.pointwise(self.depthwise[0](gather_channels(x, self.index)))  # type: ignore[no-any-return]

    def to_dense(self) -> nn.Conv2d:
        """The dense convolution that computes the same."""
        first: Any = self.depthwise[0]
        kernels = torch.cat(list(self.depthwise.parameters()))[:, 0]  # [G, K1, K2]
        size = len(self.g)
        channels = (
            torch.arange(size, device=kernels.device).repeat(len(self.depthwise)) if self.even else self.index
        )
        mixing = self.pointwise.weight[:, :, 0, 0]
        weight = mixing.new_zeros(len(mixing), size, *kernels.shape[1:])
        weight.index_add_(1, channels, mixing[:, :, None, None] * kernels)
        return _dense_convolution(weight, self.pointwise.bias, first)


class Tucker2Conv2d(nn.Module):
    """Three convolutions in the place of one: 1x1 to `rank_in` channels, the kernel to `rank_out`, 1x1 to the outputs.

    Stride, padding and dilation are the middle one's, the bias is the last one's.
    """

    def __init__(self, like: nn.Conv2d, rank_in: int, rank_out: int) -> None:
        """Fresh weights in the place of `like`. Raises `ValueError` for a grouped one, or ranks beyond its channels."""
        super().__init__()
        _refuse_ranks(
            like, {"rank_in": (rank_in, like.in_channels), "rank_out": (rank_out, like.out_channels)}
        )
        settings = _settings(like)
        self.first = nn.Conv2d(like.in_channels, rank_in, 1, bias=False, **settings)
        self.core = nn.Conv2d(rank_in, rank_out, bias=False, **_window(like), **settings)
        self.last = nn.Conv2d(rank_out, like.out_channels, 1, bias=like.bias is not None, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, M, H', W']`."""
        mixed: Tensor = self.last(self.core(self.first(x)))
        return mixed

    def to_dense(self) -> nn.Conv2d:
        """The dense convolution that computes the same."""
        core: Any = self.core.to_dense() if isinstance(self.core, GDWSConv2d) else self.core
        last = self.last.weight[:, :, 0, 0]
        weight = torch.einsum("mo,oihw,ic->mchw", last, core.weight, self.first.weight[:, :, 0, 0])
        bias = self.last.bias
        if core.bias is not None:  # a core in GDWS form that was fitted
            bias = last @ core.bias if bias is None else last @ core.bias + bias
        return _dense_convolution(weight, bias, core)


class LowRankConv2d(nn.Module):
    """Two 1x1 convolutions in the place of one; the first carries the stride, the second the bias."""

    def __init__(self, like: nn.Conv2d, rank: int) -> None:
        """Fresh weights in the place of `like`. Raises `ValueError` for a kernel, groups, or a rank beyond it."""
        super().__init__()
        if like.kernel_size != (1, 1):
            raise ValueError(f"a kernel of {like.kernel_size} is not low-rank in two; tucker-2 is its form")
        _refuse_ranks(like, {"rank": (rank, min(like.in_channels, like.out_channels))})
        settings = _settings(like)
        self.first = nn.Conv2d(like.in_channels, rank, bias=False, **_window(like), **settings)
        self.second = nn.Conv2d(rank, like.out_channels, 1, bias=like.bias is not None, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, M, H', W']`."""
        mixed: Tensor = self.second(self.first(x))
        return mixed

    def to_dense(self) -> nn.Conv2d:
        """The dense convolution that computes the same."""
        weight = self.second.weight.flatten(1) @ self.first.weight.flatten(1)
        return _dense_convolution(weight[:, :, None, None], self.second.bias, self.first)


class LowRankLinear(nn.Module):
    """Two linear layers in the place of one; the second carries the bias."""

    def __init__(self, like: nn.Linear, rank: int) -> None:
        """Fresh weights in the place of `like`. Raises `ValueError` for a rank beyond it."""
        super().__init__()
        _refuse_ranks(like, {"rank": (rank, min(like.in_features, like.out_features))})
        settings = _settings(like)
        self.first = nn.Linear(like.in_features, rank, bias=False, **settings)
        self.second = nn.Linear(rank, like.out_features, bias=like.bias is not None, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        mixed: Tensor = self.second(self.first(x))
        return mixed

    def to_dense(self) -> nn.Linear:
        """The linear layer that computes the same."""
        dense = nn.Linear(
            self.first.in_features,
            self.second.out_features,
            bias=self.second.bias is not None,
            **_settings(self.first),
        )
        with torch.no_grad():
            dense.weight.copy_(self.second.weight @ self.first.weight)
            if self.second.bias is not None:
                dense.bias.copy_(self.second.bias)
        return dense


FACTORISED = (GDWSConv2d, Tucker2Conv2d, LowRankConv2d, LowRankLinear)


def _refuse_ranks(like: nn.Conv2d | nn.Linear, ranks: dict[str, tuple[int, int]]) -> None:
    if isinstance(like, nn.Conv2d) and like.groups != 1:
        raise ValueError(f"a convolution of {like.groups} groups has no such form")
    for name, (rank, most) in ranks.items():
        if not 1 <= rank <= most:
            raise ValueError(f"{name} is {rank}; 1 to {most} are possible")


def _dense_convolution(weight: Tensor, bias: Tensor | None, window: nn.Conv2d) -> nn.Conv2d:
    """A convolution of these weights with the stride, padding and dilation of `window`."""
    outputs, inputs = weight.shape[:2]
    dense = nn.Conv2d(inputs, outputs, bias=bias is not None, **_window(window), **_settings(window))
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    return dense


def _biased(layer: Any) -> nn.Module:
    """The convolution with a bias (zeros where it had none)."""
    own = copy.deepcopy(layer)
    if own.bias is None:
        own.bias = nn.Parameter(own.weight.new_zeros(len(own.weight)))
    return own  # type: ignore[no-any-return]


def _low_rank(layer: Any, rank: int) -> nn.Module:
    return LowRankLinear(layer, rank) if isinstance(layer, nn.Linear) else LowRankConv2d(layer, rank)


# form -> build(layer that it takes the place of, numbers)
FORMS: dict[str, Callable[[Any, tuple[int, ...]], nn.Module]] = {
    "gdws": lambda layer, numbers: GDWSConv2d(layer, numbers),
    "tucker-2": lambda layer, numbers: Tucker2Conv2d(layer, *numbers),
    "low-rank": lambda layer, numbers: _low_rank(layer, *numbers),
    "biased": lambda layer, numbers: _biased(layer),
    "identity": lambda layer, numbers: nn.Identity(),
}
TAKES: dict[str, tuple[type[nn.Module], ...]] = {
    "gdws": (nn.Conv2d,),
    "tucker-2": (nn.Conv2d,),
    "low-rank": (nn.Conv2d, nn.Linear),
    "biased": (nn.Conv2d,),
    "identity": (nn.BatchNorm2d,),
}
NUMBERS = {"tucker-2": 2, "low-rank": 1, "biased": 0, "identity": 0}


def rebuild(network: nn.Module, layers: Iterable[LayerForm]) -> None:
    """Puts the forms, with fresh weights, in the place of the named layers, one after the other, in place.

    A layer that stands in several places is replaced in all of them. Raises `ValueError` for a layer that is not there,
    or that the form cannot take the place of.
    """
    for name, form, numbers in layers:
        found = dict(network.named_modules()).get(name)
        if form not in FORMS:
            raise ValueError(f"{name}: {form!r} is no form; forms: {', '.join(FORMS)}")
        if found is None or not isinstance(found, TAKES[form]):
            there = "not there" if found is None else f"a {type(found).__name__}"
            raise ValueError(
                f"{name} is {there}; {form} takes {' or '.join(t.__name__ for t in TAKES[form])}"
            )
        if len(numbers) != NUMBERS.get(form, len(numbers)):
            raise ValueError(f"{name}: {form} takes {NUMBERS[form]} numbers, got {len(numbers)}")
        try:
            made = FORMS[form](found, tuple(numbers))
        except ValueError as error:
            raise ValueError(f"{name}: {form}: {error}") from None
        replace_module(network, found, made)


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another wherever that stands below `network`; mode is taken over."""
    new.train(old.training)
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # named_children gives a shared one once
            if child is old:
                setattr(parent, name, new)


def dense(network: nn.Module) -> nn.Module:
    """A copy in which every factorised layer is the dense one that computes the same: what attacks run faster on."""
    own = copy.deepcopy(network)
    for module in reversed(list(own.modules())):  # factors of factors first
        if isinstance(module, FACTORISED):
            replace_module(own, module, module.to_dense())
    return own

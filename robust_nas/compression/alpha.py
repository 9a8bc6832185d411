"""The weight alpha_c of every input channel's error, from what the error does to the prediction.

For an image x the network says n = argmax z(x), with margins d_j = z_n - z_j to the other classes. Dbouk and Shanbhag's
code (2021; "equation (8)") has for channel c of layer l

    alpha_{c,l} = 1 / (M K1 K2) mean_x sum_{j != n} ||grad_{W_c} d_j||^2 / (2 d_j^2)

Read the error of the weights as noise of variance ||W_c - Q_c||^2 / (M K1 K2) an element, linearise, and take half of
Chebyshev's bound and the union over j: then sum_l sum_c alpha_{c,l} ||W_c - Q_c||^2 bounds the probability that the
prediction changes. (That reading is our inference; the paper's text was not available.)

A whole batch goes back at once, once a competitor; images are independent of each other in eval mode. With a layer's
patches X [C K1 K2, P] and output gradients delta_j [M, P] of one image, P output pixels,

    grad_W d_j = delta_j X^T,   sum_j w_j ||(.)_c||^2 = sum_{k in c} X_k D X_k^T,   D = sum_j w_j delta_j^T delta_j

of which the side with fewer multiply-adds is taken. The passes back, one a competitor, are the cost. `sketches` passes
take their place, each of sum_j +-sqrt(w_j) d_j with random signs: the same in expectation (Hutchinson, 1990),
and the mean over the images reduces the variance (our choice).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from robust_nas.config import Count, NonNegative, Options
from robust_nas.errors import CompressionError
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    Attack = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]

MAX_ELEMENTS = 2**20  # of a layer's temporaries: 4 MB in float32


class Alpha(Options):
    """How the weight of a channel's error is measured: on training images, attacked by the recipe's validation attack.

    `competitors`: the classes with the smallest margins that count (None: all). Margins below `margin_floor` times the
    median count as that value (our choice: otherwise a few images decide E[1 / margin^2]). `sketches` backward passes
    an image replace one a competitor, with the same expectation (None: exact).
    """

    images: Count = 1000  # training images that are measured on
    batch_size: Count = 128  # images of a pass
    attacked: bool = True  # whether the images are attacked by the recipe's validation attack
    competitors: Count | None = 10  # classes of smallest margin that count; None: all
    margin_floor: NonNegative = 0.1  # least margin, in medians
    sketches: Count | None = None  # backward passes an image instead of one a competitor; None: exact


def estimate_alpha(
    network: nn.Module,
    names: list[str],
    images: Tensor,
    *,
    attack: Attack | None = None,
    generator: torch.Generator | None = None,
    competitors: int | None = None,
    margin_floor: float = 0.0,
    sketches: int | None = None,
    batch_size: int = 128,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """Return the alphas `[C]` (float64) of the named convolutions, in eval mode; the network is left as it was.

    Args:
        network: images to logits `[B, K]`.
        names: dotted names of convolutions without groups.
        images: float `[N, C, H, W]` in 0..1, on the network's device.
        attack: an attack, called with the network's own predictions as labels; None: clean images.
        generator: of the attack and the signs.
        competitors: the classes with the smallest margins that count; None: all.
        margin_floor: margins below this multiple of the median of the smallest ones count as that. At 0 a few
            images near the boundary decide the sum: E[1 / d^2] need not exist.
        sketches: passes back an image; None, or as many as competitors: exact.
        batch_size: images at once.
        progress: called with the images that are done, and all of them.

    Raises:
        CompressionError: a name that is no standard convolution, no names, no images, or logits that are not finite or
            tied.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    for name in names:
        if not isinstance(modules.get(name), torch.nn.Conv2d) or modules[name].groups != 1:
            raise CompressionError(f"{name}: alphas are defined for convolutions without groups")
    if not names or not len(images):
        raise CompressionError("alphas need at least one convolution and one image")
    if generator is None:
        generator = torch.Generator(images.device).manual_seed(0)
    sums = {
        name: torch.zeros(modules[name].in_channels, dtype=torch.float64, device=images.device)
        for name in names
    }
    with _evaluating(network):
        inputs = torch.cat(list(attacked_batches(network, images, attack, generator, batch_size)))
        with _affine_norms(network):
            least = margin_floor * _median_margin(network, inputs, batch_size) if margin_floor else 0.0
            for start in range(0, len(inputs), batch_size):
                part = inputs[start : start + batch_size]
                found = _of_batch(network, modules, names, part, competitors, least, sketches, generator)
                for name, value in found.items():
                    sums[name] += value
                progress(min(start + batch_size, len(inputs)), len(inputs))
    return {
        name: total.cpu() / (len(images) * modules[name].weight[:, 0].numel()) for name, total in sums.items()
    }


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into eval mode inside, and back into its modes outside."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _affine_norms(network: nn.Module) -> Iterator[None]:
    """Replace plain batch norms inside by the affine maps that they are in eval mode."""
    norms = [
        module
        for module in network.modules()
        if type(module) is torch.nn.BatchNorm2d
        and module.running_mean is not None
        and "forward" not in vars(module)
    ]
    try:
        for norm in norms:
            vars(norm)["forward"] = _affine(norm)
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def _affine(norm: Any) -> Callable[[Tensor], Tensor]:
    """Return a batch norm in eval mode; its own backward pass takes many times as long on small images."""
    from robust_nas.layers.norm_folding import scale_and_shift  # a torch file: not for who reads options

    scale, shift = (constant[:, None, None] for constant in scale_and_shift(norm))
    return lambda x: x * scale + shift


def attacked_batches(
    network: nn.Module,
    images: Tensor,
    attack: Attack | None,
    generator: torch.Generator,
    batch_size: int,
) -> Iterator[Tensor]:
    """Yield the images batch by batch, attacked against the network's own predictions."""
    for part in torch.split(images, batch_size):
        if attack is None:
            yield part
        else:
            with torch.no_grad():
                predicted = network(part).argmax(1)
            yield attack(network, part, predicted, generator)


def _median_margin(network: nn.Module, images: Tensor, batch_size: int) -> float:
    """Return the median over the images of the margin to the nearest class."""
    with torch.no_grad():
        parts = torch.split(images, batch_size)
        first, second = torch.cat([_checked(network(part)) for part in parts]).double().topk(2).values.T
    return float((first - second).median())


def _checked(logits: Tensor) -> Tensor:
    """Return the logits. Raises `CompressionError` where they have no margins."""
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.isfinite().all():
        raise CompressionError(
            f"the network gives {tuple(logits.shape)}; finite logits of two classes or more are needed"
        )
    return logits


def _of_batch(
    network: nn.Module,
    modules: Mapping[str, Any],
    names: list[str],
    images: Tensor,
    competitors: int | None,
    least: float,
    sketches: int | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the sum over the images of sum_j ||grad_{W_c} d_j||^2 / (2 d_j^2), `[C]` for every name."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name].append((given[0].detach().clone(), output))
            return output.clone()  # what follows may change it in place

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        with torch.enable_grad():
            logits = _checked(network(images.detach().clone().requires_grad_()))
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name in names if calls[name]]
    outputs = [output for name in names for _, output in calls[name]]
    predicted = logits.argmax(1, keepdim=True)
    order = logits.detach().scatter(1, predicted, -torch.inf).argsort(1, descending=True)[:, :-1]
    order = order[:, :competitors]
    margins = (logits.gather(1, predicted) - logits.gather(1, order)).T  # [J, B]
    size = margins.detach().double().clamp_min(least)
    if not (size > 0).all():
        raise CompressionError(
            "two classes have the same logit, and their margin an infinite weight; a margin_floor above 0 is needed"
        )
    margins = (0.5**0.5 / size).to(images.dtype) * margins
    if sketches is not None and sketches < len(margins):
        shape = (sketches, *margins.shape)
        signs = torch.randint(0, 2, shape, generator=generator, device=images.device) * 2 - 1
        margins = (signs * margins).sum(1) / sketches**0.5
    layers = [_Layer(modules[name], [x for x, _ in calls[name]], len(margins)) for name in names]
    for rank, margin in enumerate(margins):
        grads = iter(torch.autograd.grad(margin.sum(), outputs, retain_graph=rank + 1 < len(margins)))
        for name, layer in zip(names, layers, strict=True):
            layer.add(_joined([next(grads).flatten(2) for _ in calls[name]], 2))  # [B, M, P]
    return {name: layer.total() for name, layer in zip(names, layers, strict=True)}


class _Layer:
    """The patches of a layer, and its sum so far."""

    def __init__(self, convolution: nn.Conv2d, inputs: list[Tensor], competitors: int) -> None:
        self.patches = _joined([_patches(convolution, x) for x in inputs], 1)  # [B, P, K1 K2 C]
        self.channels = convolution.in_channels
        pixels, rows = self.patches.shape[1:]
        outputs = convolution.out_channels
        direct = competitors * outputs * rows * pixels
        self.gram = pixels * pixels * (rows + competitors * outputs) < direct
        self.chunk = max(1, MAX_ELEMENTS // (rows * (pixels if self.gram else outputs)))
        self.inner: Tensor | None = None  # D [B, P, P]
        self.sum = torch.zeros(self.channels, dtype=torch.float64, device=self.patches.device)

    def add(self, delta: Tensor) -> None:
        """Add the output gradients `[B, M, P]` of a competitor's weighted margins."""
        if self.gram:
            if self.inner is None:
                self.inner = delta.transpose(1, 2) @ delta
            else:
                self.inner.baddbmm_(delta.transpose(1, 2), delta)
            return
        for patches, part in self._chunks(delta):
            self._take((part @ patches).square_().sum((0, 1)))

    def total(self) -> Tensor:
        """Return the sum over images and competitors, `[C]`."""
        if self.inner is not None:
            for patches, inner in self._chunks(self.inner):
                self._take((inner @ patches).mul_(patches).sum((0, 1)))
        return self.sum

    def _chunks(self, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield patches with rows of another tensor `[B, ...]`, a few images at a time."""
        return zip(torch.split(self.patches, self.chunk), torch.split(other, self.chunk), strict=True)

    def _take(self, rows: Tensor) -> None:
        """Add `[K1 K2 C]` to the channels."""
        self.sum += rows.view(-1, self.channels).sum(0).double()


def _joined(calls: list[Tensor], dim: int) -> Tensor:
    """Return the pixels of all calls of a layer, concatenated."""
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim)


def _patches(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the patches under the kernel, `[B, P, K1 K2 C]`."""
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    padding: list[int] = convolution._reversed_padding_repeated_twice
    if any(padding):
        x = F.pad(x, padding, mode)
    (k1, k2), (d1, d2), (s1, s2) = convolution.kernel_size, convolution.dilation, convolution.stride
    x = x.permute(0, 2, 3, 1).contiguous()  # rows of K2 C neighbours are copied at once
    windows = x.unfold(1, d1 * (k1 - 1) + 1, s1).unfold(2, d2 * (k2 - 1) + 1, s2)[..., ::d1, ::d2]
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(len(x), -1, k1 * k2 * x.shape[3])

"""The parts of LADDER (Zhou, Tsang and Yin, Machine Learning 2022, arXiv 2206.03717), fitted to a network and images.

    e       the network up to a layer (`layers/cuts.py`), z = e(x), in eval mode
    G       argmin_G mean ||G(e(x)) - x||_2^2   or   mean |G(e(x)) - x|      (Adam; `layers/ladder.py`)
    n, b    a linear SVM for each pair of classes, on the latents            (`latent_boundaries.py`)

The paper's text was not available: this follows its published code. Ours: unit normals, one layer for all networks (the
pooled features), far fewer epochs of the decoder (40 instead of 1,000), and latents of the same images in 0..1 for the
decoder as for the attack (the published CIFAR decoder is fitted to latents of (x - 0.5) 2).

N images, B batch, C channels, H height, W width, K classes, d numbers of a latent, flat.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from robust_nas.attacks.latent_boundaries import Boundaries, fit_boundaries, refuse_missing_classes
from robust_nas.config import Count, Options, Positive
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.layers.cuts import Cut

AT_ONCE = 256  # images of a forward pass


class LatentFit(Options):
    """How decoder and boundaries are fitted. `layer` None: the pooled features, or the network's own default."""

    # module whose outputs are the latents; None: the network's own default
    layer: Annotated[str, Field(min_length=1)] | None = None
    attention: Literal["none", "exp", "scaled"] = "none"  # the published `exp` is practically 1
    per_class: Count = 200  # latents of a class that an SVM sees
    svm_c: Positive = 1.0  # penalty C of the SVMs
    reconstruction: Literal["mse", "l1"] = "mse"  # loss of the decoder
    decoder_width: Count = 16  # channels
    decoder_epochs: Count = 40  # epochs of the decoder's training
    decoder_batch: Annotated[Count, Field(ge=2)] = 128  # images of a step of the decoder
    decoder_rate: Positive = 1e-3  # learning rate of Adam


@dataclass(frozen=True)
class LadderParts:
    """Decoder and boundaries of one network at one layer."""

    decoder: nn.Module  # in eval mode
    boundaries: Boundaries
    shape: tuple[int, ...]  # of a latent: (d,) or (c, h, w)
    svm_accuracy: float = float("nan")  # mean over the pairs, on the latents that they were fitted to
    unconverged: int = 0  # SVMs

    def like(self, z: Tensor) -> LadderParts:
        """Return the parts in the type and on the device of latents."""
        decoder = self.decoder
        if any(p.dtype != z.dtype or p.device != z.device for p in decoder.parameters()):
            decoder = copy.deepcopy(decoder).to(z)
        return LadderParts(decoder, self.boundaries.like(z), self.shape, self.svm_accuracy, self.unconverged)

    def decode(self, z: Tensor) -> Tensor:
        """Return G(z), images `[B, C, H, W]` in 0..1 of flat latents `[B, d]`, in their type and without a gradient."""
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            images: Tensor = self.decoder(z.reshape(len(z), *self.shape))
        return images.clamp(0, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as tensors, numbers and lists; `restored_parts` takes them."""
        return {
            "decoder": dict(self.decoder.state_dict()),
            "boundaries": self.boundaries._asdict(),
            "shape": list(self.shape),
            "svm_accuracy": self.svm_accuracy,
            "unconverged": self.unconverged,
        }


def restored_parts(
    tree: dict[str, Any], image: tuple[int, int, int], options: LatentFit, like: Tensor
) -> LadderParts:
    """Return what `LadderParts.to_dict` gave, in the type and on the device of a tensor.

    Raises what torch raises where the weights are not those of such a decoder.
    """
    shape = tuple(tree["shape"])
    decoder = _decoder(shape, image, options, 0)
    decoder.load_state_dict(tree["decoder"])
    parts = LadderParts(
        decoder, Boundaries(**tree["boundaries"]), shape, tree["svm_accuracy"], tree["unconverged"]
    )
    return parts.like(like)


def checked_classes(cut: Cut, image: tuple[int, int, int]) -> int:
    """Return K of a network that is cut. Raises `ConfigError` where it cannot be cut there; it is left as it was."""
    from robust_nas.attacks.attacked_model import attack_mode

    device = next(cut.network.parameters()).device
    with attack_mode(cut.network), torch.autocast(device.type, enabled=False):
        return cut.checked_classes(image)


def fit_parts(
    cut: Cut,
    pixels: Tensor,
    labels: Tensor,
    batches: Sequence[Tensor],
    classes: int,
    options: LatentFit,
    generator: Generator,
    before: LadderParts | None = None,
) -> LadderParts:
    """Return decoder and boundaries of the network as it is now, which is left as it was.

    Args:
        cut: where it is cut.
        pixels: uint8, or float in 0..1, `[N, C, H, W]`.
        labels: int64 `[N]`.
        batches: the indices that are used, in batches: each image takes one forward pass.
        classes: K.
        options: how they are fitted.
        generator: of the decoder's first weights and of the order of its batches.
        before: earlier parts, whose decoder is trained on.

    Raises:
        DataError: a class has no images among these.
    """
    chosen = torch.cat([indices.to(labels.device) for indices in batches])
    refuse_missing_classes(labels[chosen], classes, "ladder")
    z = torch.cat([encoded(cut, as_float(pixels[i.to(pixels.device)])) for i in batches])
    image: Any = tuple(pixels.shape[1:])
    decoder = fresh_decoder(z, image, options, generator) if before is None else copy.deepcopy(before.decoder)
    _train(decoder, z, pixels, chosen, options, generator)
    fitted = fit_boundaries(
        z.flatten(1),
        labels[chosen],
        classes,
        per_class=options.per_class,
        c=options.svm_c,
        attention=options.attention,
    )
    return LadderParts(decoder, fitted.boundaries, tuple(z.shape[1:]), fitted.accuracy, fitted.unconverged)


def untrained_parts(
    z: Tensor, image: tuple[int, ...], classes: int, options: LatentFit, generator: Generator
) -> LadderParts:
    """Return a fresh decoder and random boundaries for latents `[B, ...]`: what costs the same as fitted parts."""
    d, pairs = z[0].numel(), classes * (classes - 1) // 2
    normals = torch.randn(pairs, d, generator=generator, device=generator.device, dtype=torch.float64)
    normals = F.normalize(normals).to(z)
    ones = normals.new_ones(pairs)
    boundaries = Boundaries(normals, 0 * ones, ones, classes, options.attention)
    return LadderParts(fresh_decoder(z, image, options, generator), boundaries, tuple(z.shape[1:]))


def fresh_decoder(z: Tensor, image: tuple[int, ...], options: LatentFit, generator: Generator) -> nn.Module:
    """Return a decoder for latents like z `[N, ...]`, by whose mean and deviation they are standardised."""
    channels, height, width = image
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    decoder: Any = _decoder(tuple(z.shape[1:]), (channels, height, width), options, seed).to(z)
    decoder.standardise(z)
    return cast("nn.Module", decoder)


def _decoder(
    latent: tuple[int, ...], image: tuple[int, int, int], options: LatentFit, seed: int
) -> nn.Module:
    """Return a decoder in eval mode, in channels-last memory order; torch's own generator stays where it is."""
    from robust_nas.layers.ladder import Decoder
    from robust_nas.nets.build import seeded

    with seeded(seed):
        decoder = Decoder(latent, image, options.decoder_width).requires_grad_(False).eval()
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch leaves it out of its stubs
    return decoder


def encoded(cut: Cut, x: Tensor) -> Tensor:
    """Return e(x) `[B, ...]` of images, in eval mode and float32 or higher; the network is left as it was."""
    from robust_nas.attacks.attacked_model import attack_mode

    with attack_mode(cut.network), torch.autocast(x.device.type, enabled=False):
        return cut.encode(x.contiguous(memory_format=torch.channels_last))[0]


def as_float(pixels: Tensor) -> Tensor:
    """Return images in 0..1 of uint8 pixels, or of float ones."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _train(
    decoder: nn.Module,
    z: Tensor,
    pixels: Tensor,
    chosen: Tensor,
    options: LatentFit,
    generator: Generator,
) -> None:
    """Train the decoder on latents `[N, ...]` of the chosen pixels; batch statistics of one image are left out."""
    distance = F.mse_loss if options.reconstruction == "mse" else F.l1_loss
    decoder.requires_grad_(True).train()
    optimiser = torch.optim.Adam(decoder.parameters(), options.decoder_rate)
    with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        for _ in range(options.decoder_epochs):
            order = torch.randperm(len(z), generator=generator, device=generator.device).to(z.device)
            for rows in torch.split(order, options.decoder_batch):
                if len(rows) > 1:
                    x = as_float(pixels[chosen[rows]])
                    loss = distance(decoder(z[rows]), x)
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
    optimiser.zero_grad()
    decoder.requires_grad_(False).eval()

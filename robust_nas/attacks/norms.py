"""Balls of the two norms around images: projection, steepest directions, and random points.

Noise is drawn in the shape's own order, so that the memory format of the images does not change the draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


Norm = Literal["linf", "l2"]


def l2(tensor: Tensor) -> Tensor:
    """The L2 norm of each example, `[B, 1, 1, 1]`."""
    length: Tensor = torch.linalg.vector_norm(tensor, dim=(1, 2, 3), keepdim=True)
    return length


def finite(gradient: Tensor) -> Tensor:
    """Return gradients whose entries that are NaN or infinite are zero: a pixel without one hides no other."""
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def unit(gradient: Tensor, order: int) -> Tensor:
    """Return gradients of length 1 in the L1 or L2 norm, by `order`; zero where they are zero or NaN."""
    length = torch.linalg.vector_norm(gradient, ord=order, dim=(1, 2, 3), keepdim=True)
    # Finite gradients may have a norm that overflows; the others are divided by 1, which keeps their bits.
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(length.isinf(), largest, 1.0)
    length = torch.linalg.vector_norm(scaled, ord=order, dim=(1, 2, 3), keepdim=True)
    found: Tensor = (scaled / length.clamp_min(torch.finfo(gradient.dtype).tiny)).nan_to_num_(0.0)
    return found


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The steepest ascent direction of unit length in the norm; zero where the gradient is zero or NaN."""
    if norm == "linf":
        return gradient.sign()  # torch's sign of NaN is 0
    return unit(gradient, 2)


def project(x: Tensor, images: Tensor, radius: float | None, norm: Norm) -> Tensor:
    """The nearest point to `x` within `radius` of the images, clamped to the box 0..1; None: the box alone."""
    if radius is not None and norm == "linf":
        x = x.clamp(images - radius, images + radius)
    elif radius is not None:
        delta = x - images
        length = l2(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        x = images + delta * (radius / length).clamp_max(1)
    return x.clamp(0, 1)  # only shortens the perturbation, because the image itself is in the box


def noise_in_ball(images: Tensor, radius: float, norm: Norm, generator: Generator) -> Tensor:
    """Uniform noise in the ball, `[B, C, H, W]`."""
    noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    if norm == "linf":
        return noise.uniform_(-radius, radius, generator=generator)
    # A uniform direction, and a radius whose d-th power is uniform.
    noise = direction(noise.normal_(generator=generator), "l2")
    share = torch.rand(images.shape[0], dtype=images.dtype, device=images.device, generator=generator)
    return noise * (radius * share.pow(1 / images[0].numel()).view(-1, 1, 1, 1))


def on_sphere(images: Tensor, radius: float, norm: Norm, generator: Generator) -> Tensor:
    """Noise of exactly that norm, `[B, C, H, W]`: APGD's start (uniform and scaled up for Linf, normal for L2)."""
    noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    if norm == "l2":
        return radius * direction(noise.normal_(generator=generator), "l2")
    noise = 2 * torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator) - 1
    largest = noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return radius * noise / largest

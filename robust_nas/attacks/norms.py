"""Balls of the three norms around images: projection, steepest directions, and random points.

Noise is drawn in the shape's own order, so that the memory format of the images does not change the draw.
The projection onto an L1 ball within the box is in `l1_ball.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from robust_nas.attacks.l1_ball import onto_l1_ball
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


Norm = Literal["linf", "l2", "l1"]
ORDER: Mapping[Norm, float] = {"linf": math.inf, "l2": 2, "l1": 1}  # p
DUAL: Mapping[Norm, float] = {"linf": 1, "l2": 2, "l1": math.inf}  # q, with 1/p + 1/q = 1


def length(delta: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each example's perturbation, `[B]`, in its own dtype."""
    size: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[norm], dim=1)
    return size


def diameter(norm: Norm, shape: tuple[int, ...]) -> float:
    """Return the largest distance of two images of `shape` (C, H, W): 1, sqrt(D) or D, of D pixels."""
    pixels = math.prod(shape)
    return 1.0 if norm == "linf" else pixels**0.5 if norm == "l2" else float(pixels)


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
    """The steepest ascent direction of unit length in the norm; zero where the gradient is zero or NaN.

    In L1 that is one pixel, the one of the largest gradient (the first of equal ones).
    """
    if norm == "linf":
        return gradient.sign()  # torch's sign of NaN is 0
    if norm == "l2":
        return unit(gradient, 2)
    flat = finite(gradient).flatten(1)
    place = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign()).view_as(gradient)


def project(x: Tensor, images: Tensor, radius: float | Tensor | None, norm: Norm) -> Tensor:
    """The nearest point to `x` within `radius` of the images, clamped to the box 0..1; None: the box alone.

    A tensor `[B]` is a radius for each example.
    In Linf and L1 it is the nearest point of ball and box together; in L2 first of the ball, then of the box.
    """
    if isinstance(radius, torch.Tensor):
        radius = radius.view(-1, 1, 1, 1)
    if radius is not None and norm == "l1":
        return onto_l1_ball(x, images, radius)
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
    # A uniform point of the unit sphere, and a radius whose d-th power is uniform.
    noise = on_sphere(images, 1.0, norm, generator)
    share = torch.rand(images.shape[0], dtype=images.dtype, device=images.device, generator=generator)
    return noise * (radius * share.pow(1 / images[0].numel()).view(-1, 1, 1, 1))


def on_sphere(images: Tensor, radius: float, norm: Norm, generator: Generator) -> Tensor:
    """Noise of exactly that norm, `[B, C, H, W]`: uniform and scaled up for Linf, normal for L2, Laplace for L1.

    For L2 and L1 it is uniform on the sphere; it is APGD's start in Linf and L2.
    """
    noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    if norm == "l2":
        return radius * direction(noise.normal_(generator=generator), "l2")
    if norm == "l1":
        signs = torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator) - 0.5
        return radius * unit(noise.exponential_(generator=generator) * signs.sign(), 1)
    noise = 2 * torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator) - 1
    largest = noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return radius * noise / largest

"""The exact projection onto an L1 ball within the box 0..1 (Croce and Hein, "Mind the box", ICML 2021).

    min_u ||u - d||_2^2    subject to    ||u||_1 <= r,   0 <= x + u <= 1

    a_i = |d_i|,  c_i = 1 - x_i where d_i > 0, else x_i       the way to the box in the direction of d_i
    u_i = sign(d_i) min(max(a_i - lam, 0), c_i)               lam >= 0, and 0 where the sum is at most r
    s(lam) = sum_i min(max(a_i - lam, 0), c_i) = r            otherwise

s falls, and is linear between its 2 D breakpoints a_i and a_i - c_i: they are sorted from the largest to the smallest,
s at each is a cumulative sum, and lam is found by interpolation in the first interval in which s reaches r. To project
onto the ball and then onto the box, as for L2, leaves a part of the budget unused: the nearest point of the ball may
put much of its length outside the box (their section 2).

Everything is computed in float64. Where rounding to the dtype of the images would lengthen a pixel's perturbation, the
pixel is rounded towards the image, so that the length is at most r. B batch, D = C H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def onto_l1_ball(x: Tensor, images: Tensor, radius: float | Tensor) -> Tensor:
    """Return the nearest point to `x` `[B, C, H, W]` in the L1 ball around the images and in the box 0..1.

    The radius is one number, or one for each example, `[B, 1, 1, 1]`. What lies in both keeps its bits.
    """
    flat, centre = x.flatten(1).double(), images.flatten(1).double()
    limit = torch.as_tensor(radius, dtype=torch.float64, device=x.device).reshape(-1, 1)  # [B, 1], or [1, 1]
    inside = flat.clamp(0, 1)
    far = (inside - centre).abs().sum(1, keepdim=True) > limit  # [B, 1]
    delta = flat - centre
    size, room = delta.abs(), torch.where(delta > 0, 1 - centre, centre)
    shrunk = (size - _threshold(size, room, limit)).clamp_min(0).minimum(room)
    moved = (centre + delta.sign() * shrunk).to(x.dtype)
    long = (moved.double() - centre).abs() > shrunk
    moved = torch.where(long, torch.nextafter(moved, images.flatten(1)), moved)
    found: Tensor = torch.where(far, moved, inside.to(x.dtype)).view_as(x)
    return found


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return lam `[B, 1]` for a `[B, D]` and c `[B, D]`; of no meaning where s(0) is at most r `[B, 1]`."""
    points, order = torch.cat([size, size - room], 1).sort(1, descending=True)  # [B, 2 D]
    # Below a_i a pixel adds to s, below a_i - c_i it adds no more.
    slope = torch.where(order < size.shape[1], 1.0, -1.0).to(size.dtype).cumsum(1)
    rise = slope[:, :-1] * (points[:, :-1] - points[:, 1:])
    s = torch.cat([torch.zeros_like(rise[:, :1]), rise.cumsum(1)], 1)  # [B, 2 D], at each breakpoint
    after = (s < radius).sum(1, keepdim=True).clamp(1, s.shape[1] - 1)  # the first breakpoint with s >= r
    before = after - 1
    lam: Tensor = points.gather(1, before) - (radius - s.gather(1, before)) / slope.gather(
        1, before
    ).clamp_min(1)
    return lam.clamp_min(0)


def farthest_in_l1(images: Tensor, direction: Tensor, radius: float) -> Tensor:
    """Return the points of the ball and the box that lie farthest along directions, `[B, C, H, W]`.

    Pixels are moved to the end of the box in the order of the direction's entries until the length is used up.
    """
    centre, along = images.flatten(1).double(), direction.flatten(1).double()
    room = torch.where(along > 0, 1 - centre, centre)
    order = along.abs().argsort(dim=1, descending=True, stable=True)
    sorted_room = room.gather(1, order)
    left = radius - (sorted_room.cumsum(1) - sorted_room)
    moved = torch.zeros_like(room).scatter(1, order, left.clamp_min(0).minimum(sorted_room))
    found: Tensor = (centre + along.sign() * moved).clamp(0, 1).to(images.dtype).view_as(images)
    return found

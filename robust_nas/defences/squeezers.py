"""Squeezers: what takes detail out of an image, so that a small perturbation has less to work with (Xu et al., 2018).

    bit-i       rint(x (2^i - 1)) / (2^i - 1)             half to even, as numpy's rint; the binary filter is i = 1
    median-k    y[r, c] = sorted(window of k x k)[k k // 2]    mirrored with the edge; of an even k, the window begins
                k / 2 before the pixel, and the upper of the two middle values is taken: scipy.ndimage.median_filter
    nlm-s-b-h   non-local means, search window of s pixels, blocks of b, strength h / 255   by scikit-image

The authors take OpenCV's non-local means on uint8, in the colours of Lab where there are three channels. Ours works on
floats and on all channels at once, so that figures of the two differ.

Rounding and non-local means have no useful gradient: their backward pass is the identity (BPDA, Athalye et al. 2018).
The median passes the gradient to the pixel that it took. B images, C channels, H x W pixels, n = k k.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from robust_nas.defences.straight_through import straight_through
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Squeeze = Callable[["Tensor"], "Tensor"]  # images [B, C, H, W] in 0..1, before and after

ACCEPTED = (
    "bit-I (I in 1..8), median-K (K from 2), nlm-SEARCH-BLOCK-STRENGTH (such as nlm-13-3-2; odd windows)"
)
LEAST = {"bit": (1,), "median": (2,), "nlm": (3, 1, 1)}


def check_squeezer(text: str) -> str:
    """Return the name of a squeezer; raise `ValueError` for another text."""
    kind, *words = text.split("-")
    least = LEAST.get(kind, ())
    numbers = [int(word) for word in words if word.isdecimal() and len(word) < 5]
    sound = bool(least) and len(numbers) == len(words) == len(least)
    sound = sound and all(number >= low for number, low in zip(numbers, least, strict=True))
    if sound and kind == "bit":
        sound = numbers[0] <= 8
    if sound and kind == "nlm":
        sound = numbers[0] % 2 == 1 and numbers[1] % 2 == 1
    if not sound:
        raise ValueError(f"got squeezer {text[:200]!r}; allowed: {ACCEPTED}")
    return text


Squeezer = Annotated[str, AfterValidator(check_squeezer)]


def squeezer(name: str) -> Squeeze:
    """Return the squeezer of a name, such as `median-2`."""
    kind, *words = name.split("-")
    makers: dict[str, Callable[..., Tensor]] = {
        "bit": bit_depth,
        "median": median,
        "nlm": non_local_means,
    }
    return partial(_applied, makers[kind], tuple(int(word) for word in words))


def _applied(make: Callable[..., Tensor], numbers: tuple[int, ...], x: Tensor) -> Tensor:
    return make(x, *numbers)


def refuse_images(name: str, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` where a squeezer is not defined for images of `shape` (C, H, W), or a package is missing."""
    kind, *words = name.split("-")
    side = min(shape[1:])
    if kind == "median" and int(words[0]) > side:
        raise ConfigError(
            f"squeezer {name}: needs images of at least {words[0]} x {words[0]} pixels, got {shape[1]} x {shape[2]}"
        )
    if kind == "nlm" and find_spec("skimage") is None:
        raise ConfigError(
            f"squeezer {name}: scikit-image is not installed; it needs: pip install 'robust-nas[defences]'; "
            "bit-I and median-K work without it"
        )


def bit_depth(x: Tensor, bits: int) -> Tensor:
    """Return images with 2^bits levels a pixel."""
    top = 2**bits - 1
    return straight_through(x, torch.round(x * top) / top)


def median(x: Tensor, size: int) -> Tensor:
    """Return images of which each pixel is the median of its window of `size` x `size`."""
    before, after = size // 2, (size - 1) // 2
    for axis in (2, 3):
        x = _mirrored(x, axis, before, after)
    windows = x.unfold(2, size, 1).unfold(3, size, 1).flatten(4)  # [B, C, H, W, n]
    ordered: Tensor = windows.sort(-1).values
    return ordered[..., size * size // 2]


def _mirrored(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Return images with so many more rows or columns, mirrored at the edge, which is repeated: d c b a | a b c d."""
    parts = [x]
    if before:
        parts.insert(0, _cut(x, axis, slice(0, before)).flip(axis))
    if after:
        parts.append(_cut(x, axis, slice(-after, None)).flip(axis))
    return torch.cat(parts, axis)


def _cut(x: Tensor, axis: int, part: slice) -> Tensor:
    return x[:, :, part] if axis == 2 else x[:, :, :, part]


def non_local_means(x: Tensor, search: int, block: int, strength: int) -> Tensor:
    """Return images of which each pixel is the mean of those with similar surroundings (Buades et al., 2005).

    `search` and `block` are sides in pixels, `strength` is on the scale 0..255.
    """
    from skimage.restoration import denoise_nl_means

    images = [
        denoise_nl_means(
            image,
            patch_size=block,
            patch_distance=search // 2,
            h=strength / 255,
            fast_mode=True,
            channel_axis=0,
        )
        for image in x.detach().cpu().double().numpy()
    ]
    found = torch.stack([torch.from_numpy(image) for image in images]).reshape(
        x.shape
    )  # one channel is dropped
    return straight_through(x, found.to(x).clamp(0, 1))

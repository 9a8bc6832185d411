"""What one image file means: 8-bit grey or RGB pixels, upright.

format        by content: PNG, JPEG, WebP, BMP or TIFF
orientation   the one of EXIF is applied, so that a photograph stands upright
transparency  an alpha channel, or the transparent colour of a palette, is dropped: the colours under it are read
palettes      are resolved to RGB; 1-bit images are grey, 0 and 255
16 bit        colour is read at its high byte; grey is refused, since its range is often not the whole of 16 bit
colours       CMYK and YCbCr are converted to RGB by Pillow's formulas, embedded ICC profiles are not applied; LAB and
              floating-point pixels are refused
frames        animations and files of several pages are refused; of a JPEG with several pictures (MPO) the first is read
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from robust_nas.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
MAX_PIXELS = 4096 * 4096  # of one image: beyond it, a small file is more likely a bomb than a dataset
TURNED = range(2, 9)  # values of EXIF's orientation that are not upright
SIDEWAYS = range(5, 9)  # those that exchange width and height


def layout(path: str) -> tuple[int, int, bool]:
    """Return width and height of the upright image, and whether it is grey, by its header.

    Raises `DataError` for a file that is no such image.
    """
    with _opened(path) as image:
        if image.mode not in GREY | COLOUR:
            raise DataError(f"{path}: pixel mode {image.mode}; 8-bit grey or colour is needed")
        if any("LA;16" in str(tile.args) for tile in getattr(image, "tile", ())):  # of mode RGBA in Pillow
            raise DataError(f"{path}: 16-bit grey with alpha; 8-bit grey or colour is needed")
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{path}: {frames} frames or pages; one image a file is needed")
        width, height = image.size
        # A PNG is decoded for its EXIF, which may come last: of a square one, the size is known without.
        if width != height and _orientation(image) in SIDEWAYS:
            image.load()  # a TIFF is turned by Pillow itself
            width, height = image.size if image.format == "TIFF" else (height, width)
        return width, height, image.mode in GREY


def pixels(path: str, mode: str) -> npt.NDArray[np.uint8]:
    """Return the upright image in `mode` L `[H, W]` or RGB `[H, W, 3]`. Raises `DataError` as above."""
    with _opened(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) in TURNED else image
        return np.asarray(upright.convert(mode))


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) else 1


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Give the image with its header read, and raise `DataError` for whatever goes wrong with it."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {image.width}x{image.height} pixels; at most {MAX_PIXELS} are accepted"
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"{path}: cannot be decoded as PNG, JPEG, WebP, BMP or TIFF: {error}") from None

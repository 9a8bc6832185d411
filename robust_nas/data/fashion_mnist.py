"""Fashion-MNIST from IDX files (Xiao et al. 2017, arXiv:1708.07747), each gzipped or not.

IDX: two zero bytes, one type byte (8: unsigned byte), one byte with the number of dimensions, each dimension
as big-endian uint32, then the values, row-major. Nothing beyond the declared size is ever decompressed.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal, cast

import numpy as np

from robust_nas.data.images import Images, check_labels
from robust_nas.data.reader import DatasetReader, Parts, SplitBy
from robust_nas.errors import DataError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIDE = 28  # pixels
MAX_IMAGES = 200_000  # a header that declares more is damaged or hostile; the set has 60,000
WHERE = (
    f"get the four files with `apt-get install dataset-fashion-mnist` (into {DEFAULT_FOLDER}) or from "
    "https://github.com/zalandoresearch/fashion-mnist"
)


class FashionMNIST(DatasetReader):
    """Fashion-MNIST, from its four IDX files (Xiao et al. 2017)."""

    default_path: ClassVar[Path] = DEFAULT_FOLDER
    where: ClassVar[str] = WHERE
    split_by: ClassVar[SplitBy] = "publishers"

    name: Literal["fashion-mnist"] = "fashion-mnist"

    def read(self, path: Path | None) -> Parts:
        """Return 60,000 training images, 10,000 test images and the class names; [N, 1, 28, 28].

        Raises `DataError` for a missing, truncated, overlong or mislabelled file.
        """
        folder = path or DEFAULT_FOLDER
        return Parts(_read_part(folder, "train"), _read_part(folder, "t10k"), CLASS_NAMES)


def _read_part(folder: Path, part: str) -> Images:
    pixels_path = _find(folder, f"{part}-images-idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    pixels = _read_idx(pixels_path, (SIDE, SIDE))
    labels = _read_idx(labels_path, ()).to(torch.int64)
    if len(pixels) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels, but {pixels_path} has {len(pixels)} images; "
            "the counts must be equal"
        )
    check_labels(labels, len(CLASS_NAMES), labels_path)
    return Images(pixels[:, None], labels)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: no file {name} or {name}.gz; {WHERE}")


def _read_idx(path: Path, item: tuple[int, ...]) -> Tensor:
    """Return uint8 [N, *item] of an IDX file whose items have exactly that shape."""
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as stream:
            shape = _read_header(stream, path, item)
            body = stream.read(math.prod(shape) + 1)  # one more byte shows that the file goes on
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, or is truncated or damaged: {error}; {WHERE}") from None
    if len(body) != math.prod(shape):
        found = "more" if len(body) > math.prod(shape) else f"{len(body)}"
        raise DataError(f"{path}: {found} bytes after the header, which declares {math.prod(shape)}; {WHERE}")
    return torch.from_numpy(np.frombuffer(body, dtype=np.uint8).reshape(shape).copy())


def _read_header(stream: BinaryIO, path: Path, item: tuple[int, ...]) -> tuple[int, ...]:
    dimensions = 1 + len(item)
    header = stream.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: {len(header)} bytes, an IDX header has {4 + 4 * dimensions}; {WHERE}")
    magic, count, *sides = struct.unpack(f">{1 + dimensions}I", header)
    expected = 0x0800 + dimensions
    if magic != expected:
        raise DataError(
            f"{path}: magic number 0x{magic:08x}; 0x{expected:08x} is needed "
            f"(IDX of unsigned bytes with {dimensions} dimensions)"
        )
    if not 1 <= count <= MAX_IMAGES:
        raise DataError(f"{path}: the header declares {count} items; 1 to {MAX_IMAGES} are accepted")
    if tuple(sides) != item:
        raise DataError(f"{path}: the header declares images of shape {tuple(sides)}; {item} is needed")
    return (count, *item)

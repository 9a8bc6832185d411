"""Images in an `.npz` file, as generated sets are published: `image` uint8, `label` whole numbers.

Shapes and types are read from the headers of the two members, and held against their sizes, before anything of theirs
is allocated. Nothing is unpickled. N images, C channels, H height, W width.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robust_nas.config import existing_file
from robust_nas.errors import DataError

if TYPE_CHECKING:
    from robust_nas.data.images import Images

IMAGE, LABEL = "image", "label"
DATED = (1980, 1, 1, 0, 0, 0)  # of every member of a file that is written


def checksum(path: str, needed: str = f"{IMAGE} and {LABEL}") -> str:
    """Return the SHA-256 of a file; of one that did not change it is computed once. Raises `DataError` without one."""
    file = existing_file(path)
    if file is None:
        raise DataError(f"got path {path[:200]!r}: there is no such file; an .npz with {needed} is needed")
    status = file.stat()
    return _checksum(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _checksum(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(path: str, shape: tuple[int, ...], classes: int) -> None:
    """Raise `DataError` unless a file holds images of `shape` (C, H, W) and labels 0..classes - 1."""
    _read(path, shape, classes, pixels=False)


def load(path: str, shape: tuple[int, ...], classes: int) -> Images:
    """Return the images of a file on the CPU. Raises `DataError` as `check` does."""
    import torch

    from robust_nas.data.images import Images

    labels, pixels = _read(path, shape, classes, pixels=True)
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels.astype(np.int64)))


def _read(path: str, shape: tuple[int, ...], classes: int, *, pixels: bool) -> tuple[Any, Any]:
    """Return labels [N] and, where asked for, pixels [N, C, H, W]."""
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: header(archive, name, path) for name in (IMAGE, LABEL)}
            order = _order(*headers[IMAGE], shape, path)
            (count, *_), (found, dtype) = headers[IMAGE][0], headers[LABEL]
            if found != (count,) or dtype.kind not in "iu":
                raise DataError(
                    f"{path}: {LABEL} is {dtype} of shape {found}; whole numbers of shape ({count},) are needed"
                )
            labels = array(archive, LABEL)
            bad = np.flatnonzero((labels < 0) | (labels >= classes))
            if len(bad):
                raise DataError(
                    f"{path}: {LABEL} {labels[bad[0]]} of image {bad[0]}; labels go from 0 to {classes - 1}"
                )
            return labels, order(array(archive, IMAGE)) if pixels else None
    except DataError:
        raise
    except Exception as error:  # zip and header parsers raise OSError, BadZipFile, ValueError, ...
        raise DataError(f"{path}: cannot be read as .npz: {error}") from None


def _order(
    found: tuple[int, ...], dtype: np.dtype[Any], shape: tuple[int, ...], path: str
) -> Callable[[Any], Any]:
    """Return what turns the stored images into [N, C, H, W]. Raises `DataError` for other images."""
    C, H, W = shape
    count, *each = found if found else (0,)
    orders: dict[tuple[int, ...], Callable[[Any], Any]] = {
        (H, W, C): lambda array: array.transpose(0, 3, 1, 2),
        (C, H, W): lambda array: array,
        **({(H, W): lambda array: array[:, None]} if C == 1 else {}),
    }
    if dtype != np.uint8 or tuple(each) not in orders or count == 0:
        raise DataError(
            f"{path}: {IMAGE} is {dtype} of shape {found}; uint8 of shape (N, {H}, {W}, {C}) or (N, {C}, {H}, {W}) is "
            "needed, like the training images"
        )
    return orders[tuple(each)]


def header(
    archive: zipfile.ZipFile, name: str, path: str, needed: str = f"{IMAGE} and {LABEL}"
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of a member. Raises `DataError` where it is missing or shorter than it says."""
    member = f"{name}.npy"
    if member not in archive.namelist():
        raise DataError(f"{path}: has no array {name!r}; {needed} are needed")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise DataError(f"{path}: {name} is of .npy version {version}; 1.0 or 2.0 is needed")
        shape, _, dtype = read[version](stream)
        size = archive.getinfo(member).file_size - stream.tell()
    if dtype.hasobject or size != math.prod(shape) * dtype.itemsize:
        raise DataError(f"{path}: {name} is {dtype} of shape {shape}, but has {size} bytes")
    return shape, dtype


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Return an `.npz` file of these arrays by name; equal arrays give equal bytes, whenever they are written."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", DATED)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, member.getvalue())
    return whole.getvalue()


def array(archive: zipfile.ZipFile, name: str) -> Any:
    """Return a member whose header was read."""
    with archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)

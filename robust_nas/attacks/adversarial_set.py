"""Adversarial images in an `.npz` file, with the images that they were made of and how they were made.

    images   float32 [N, C, H, W] in 0..1, the adversarial ones
    clean    float32 [N, C, H, W] in 0..1
    labels   int64 [N], the true classes
    meta     text: a JSON object with attack (its options), threat_model (norm and eps, null without a bound), victim
             (the digest of the model that was attacked, `nets/digest.py`), data, seed, versions

Nothing is unpickled, and headers are held against the sizes of the members before anything is allocated. The same set
is the same file, byte for byte.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robust_nas.data import npz
from robust_nas.errors import DataError
from robust_nas.records import Shape, misfit, parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = ("images", "clean", "labels", "meta")
NEEDED = "images, clean, labels and meta"
META: Shape = {
    "attack": {"name": str},
    "label": str,
    "threat_model": {"norm": frozenset({"linf", "l2", "l1"}), "eps": (float, None)},
    "victim": str,
    "data": {str: object},
    "seed": int,
    "versions": {str: str},
}
UNPACKED = 1 << 36  # bytes, of all arrays together


@dataclass(frozen=True, kw_only=True, eq=False)
class AdversarialSet:
    """What such a file holds; `meta` as the object."""

    images: NDArray[np.float32]
    clean: NDArray[np.float32]
    labels: NDArray[np.int64]
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def places(self) -> dict[bytes, int]:
        """Return the place of every clean image by its digest; of equal ones the first."""
        found: dict[bytes, int] = {}
        for place, image in enumerate(self.clean):
            found.setdefault(digest(image), place)
        return found


def digest(image: NDArray[np.float32]) -> bytes:
    """Return by what an image `[C, H, W]` float32 is known again: every bit of it counts."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def write_set(path: Path, found: AdversarialSet) -> None:
    """Write a set to a file that is not there yet. Raises `DataError` for what `read_set` would refuse."""
    meta = json.dumps(dict(found.meta), sort_keys=True, allow_nan=False)
    _refuse_misfit(found, str(path))
    arrays = {"images": found.images, "clean": found.clean, "labels": found.labels, "meta": np.array(meta)}
    with path.open("xb") as file:
        file.write(npz.packed(arrays))


def checksum(path: str) -> str:
    """Return the SHA-256 of a file. Raises `DataError` without one."""
    return npz.checksum(path, NEEDED)


def read_set(path: str) -> AdversarialSet:
    """Return the set in a file; one that did not change is read once. Raises `DataError` for anything else."""
    return _read(path, checksum(path))


@functools.lru_cache(maxsize=4)
def _read(path: str, of: str) -> AdversarialSet:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: npz.header(archive, name, path, NEEDED) for name in ARRAYS}
            size = sum(archive.getinfo(f"{name}.npy").file_size for name in ARRAYS)
            if size > UNPACKED:
                raise DataError(f"{path}: unpacks to {size} bytes; at most {UNPACKED} are read")
            _refuse_headers(headers, path)
            images, clean, labels, text = (npz.array(archive, name) for name in ARRAYS)
        meta = parse_json(str(text))
    except DataError:
        raise
    except Exception as error:  # zip, header and JSON parsers raise OSError, BadZipFile, ValueError, ...
        raise DataError(f"{path}: cannot be read as a set of adversarial images: {error}") from None
    found = AdversarialSet(images=images, clean=clean, labels=labels, meta=meta)
    _refuse_misfit(found, path)
    return found


def _refuse_headers(headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], path: str) -> None:
    """Raise `DataError` for arrays of other types or shapes."""
    count = (headers["images"][0] or (0,))[0]
    shapes = {"images": headers["images"][0], "clean": headers["images"][0], "labels": (count,), "meta": ()}
    types = {"images": "float32", "clean": "float32", "labels": "int64", "meta": "text"}
    if len(shapes["images"]) != 4 or 0 in shapes["images"]:
        raise DataError(f"{path}: images has shape {shapes['images']}; [N, C, H, W] is needed")
    for name, (shape, dtype) in headers.items():
        kind = "text" if dtype.kind == "U" else str(dtype)
        if kind != types[name] or shape != shapes[name]:
            raise DataError(
                f"{path}: {name} is {kind} of shape {shape}; {types[name]} of shape {shapes[name]} is needed"
            )


def _refuse_misfit(found: AdversarialSet, path: str) -> None:
    """Raise `DataError` for pixels outside 0..1, labels below 0, and a `meta` that lacks something."""
    for name in ("images", "clean"):
        pixels = getattr(found, name)
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # written so that NaN fails it too
            raise DataError(
                f"{path}: {name} reach from {low:.6g} to {high:.6g}; pixels lie in 0..1, without NaN"
            )
    if found.labels.min() < 0:
        raise DataError(f"{path}: label {found.labels.min()}; classes are counted from 0")
    if problem := misfit(found.meta, META):
        raise DataError(f"{path}: meta: {problem}")

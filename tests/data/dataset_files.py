"""Small files in the form of every built-in dataset."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from robust_nas.data.cifar10 import IMAGES_PER_FILE, RECORD_BYTES, TEST_FILE, TRAIN_FILES


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def _digits(folder: Path) -> None:
    return None


def _fashion_mnist(folder: Path) -> Path:
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    return folder


def _cifar10(folder: Path) -> Path:
    for name in (*TRAIN_FILES, TEST_FILE):  # black images of class 0, as files without content on the disk
        with (folder / name).open("wb") as stream:
            stream.truncate(IMAGES_PER_FILE * RECORD_BYTES)
    return folder


def _image_folder(folder: Path) -> Path:
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (folder / place).mkdir(parents=True)
        (folder / place / "1.png").write_bytes(png(np.full((6, 5, 3), 40 * number, dtype=np.uint8)))
    return folder


def _npz(folder: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", image=pixels, label=np.arange(20) % 10)
    return folder / "set.npz"


# Writes the files of a dataset into an empty folder; the path that a config names, or None where it takes none.
WRITE: dict[str, Callable[[Path], Path | None]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "image-folder": _image_folder,
    "npz": _npz,
}

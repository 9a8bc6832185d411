"""A folder of images: `train/<class>/*.png|jpg|jpeg` and `test/<class>/...`.

Classes are the folders of `train`, in natural order (class2 before class10). All images have one size. All
are read as grey when all are grey, else all as RGB; an alpha channel is dropped. Hidden files and files of
other kinds are passed over.

Two passes: the headers first, so that a wrong image is named before anything is decoded, and the pixels go
straight into their final array.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from robust_nas.data.images import Images, check_class_name
from robust_nas.data.reader import DatasetReader, Parts, SplitBy
from robust_nas.errors import DataError
from robust_nas.lazy import torch

LAYOUT = "train/<class>/*.png|jpg|jpeg and test/<class>/*.png|jpg|jpeg are needed"
EXTENSIONS = (".png", ".jpg", ".jpeg")
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
MAX_PIXELS = 4096 * 4096  # of one image: beyond it, a small file is more likely a bomb than a dataset


class ImageFolder(DatasetReader):
    """A folder of PNG or JPEG images, a folder a class."""

    files: ClassVar[str] = "the folder of the images"
    where: ClassVar[str] = LAYOUT
    split_by: ClassVar[SplitBy] = "user"

    name: Literal["image-folder"] = "image-folder"

    def read(self, path: Path | None) -> Parts:
        """Return training images, test images and class names; [N, C, H, W] with C = 1 (grey) or 3 (RGB)."""
        assert path is not None  # noqa: S101 - `location` has refused it
        return read_image_folder(path)


def read_image_folder(root: Path) -> Parts:
    """Return training images, test images and class names; [N, C, H, W] with C = 1 (grey) or 3 (RGB).

    Raises `DataError`, naming the file or folder, for a part or class without images, a test class that
    `train` does not have, an image that cannot be decoded or has another size than the first, and a link that
    leaves `root`.
    """
    train, test = _list_part(root, "train"), _list_part(root, "test")
    names = tuple(train)
    if len(names) < 2:
        raise DataError(f"{root / 'train'}: {len(names)} class ({names[0]}); at least two are needed")
    for name in test:
        if name not in train:
            raise DataError(f"{root / 'test' / name}: no class {name!r} in train; it has {', '.join(names)}")
    train_files = [(label, path) for label, name in enumerate(names) for path in train[name]]
    test_files = [(label, path) for label, name in enumerate(names) for path in test.get(name, [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on palettes and metadata; sizes are checked here
        width, height, mode = _common_layout([path for _, path in train_files + test_files])
        training = _decode(train_files, width, height, mode)
        return Parts(training, _decode(test_files, width, height, mode), names)


def _list_part(root: Path, part: str) -> dict[str, list[Path]]:
    """Return the image files of each class, classes and files in natural order."""
    try:
        folders = [entry for entry in _entries(root / part, root) if entry.is_dir()]
        for folder in folders:
            check_class_name(folder.name, root / part)
        classes = {folder.name: _list_class(folder, root) for folder in folders}
    except OSError as error:
        raise DataError(f"{root / part}: cannot be listed: {error}; {LAYOUT}") from None
    if not classes:
        raise DataError(f"{root / part}: no class folder; {LAYOUT}")
    return classes


def _list_class(folder: os.DirEntry[str], root: Path) -> list[Path]:
    paths = [
        Path(entry.path)
        for entry in _entries(Path(folder.path), root)
        if entry.name.lower().endswith(EXTENSIONS) and entry.is_file()
    ]
    if not paths:
        raise DataError(f"{folder.path}: no {', '.join(EXTENSIONS)} file in this class folder; {LAYOUT}")
    return paths


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Return what is in `folder`, hidden entries left out, in natural order. Links must stay inside `root`."""
    if folder.is_symlink():
        _check_link(folder, root)
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink():
            _check_link(Path(entry.path), root)
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise DataError(f"{path}: a link that leads nowhere: {error}") from None
    if not target.is_relative_to(root.resolve()):
        raise DataError(f"{path}: a link to {target}, outside {root}; links must stay inside")


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Return a sort key: runs of digits by value, class2 before class10; the name itself decides between 1 and 01."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the image with its header read, and raise `DataError` for whatever goes wrong with it."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {image.width}x{image.height} pixels; at most {MAX_PIXELS} are accepted"
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"{path}: cannot be decoded as PNG or JPEG: {error}") from None


def _common_layout(paths: list[Path]) -> tuple[int, int, str]:
    """Return width, height and mode (L or RGB) that serve every image."""
    first: tuple[int, int] | None = None
    grey = True
    for path in paths:
        with _opened(path) as image:
            first = first or image.size
            if image.size != first:
                raise DataError(
                    f"{path}: {image.width}x{image.height} pixels, but {paths[0]} has {first[0]}x{first[1]}; "
                    "all images must have one size"
                )
            if image.mode not in GREY | COLOUR:
                raise DataError(f"{path}: pixel mode {image.mode}; 8-bit grey or colour is needed")
            grey = grey and image.mode in GREY
    if first is None:
        raise DataError(f"no images; {LAYOUT}")
    return first[0], first[1], "L" if grey else "RGB"


def _decode(files: list[tuple[int, Path]], width: int, height: int, mode: str) -> Images:
    pixels = np.empty((len(files), height, width, len(mode)), dtype=np.uint8)  # L: one channel, RGB: three
    for index, (_, path) in enumerate(files):
        with _opened(path) as image:
            pixels[index] = np.asarray(image.convert(mode)).reshape(height, width, len(mode))
    labels = torch.tensor([label for label, _ in files], dtype=torch.int64)
    return Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)

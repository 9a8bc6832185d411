"""A folder of images: `train/<class>/*.png|jpg|webp|bmp|tif` and `test/<class>/...`.

Classes are the folders of `train`, in natural order (class2 before class10). Images in folders inside a class folder
are of that class. All images have one size (`image_file` says what a file means). All are read as grey when all are
grey, else all as RGB. Hidden files are passed over, and so are files of other kinds, which a remark counts.

Two passes: the headers first, so that a wrong image is named before anything is decoded, and the pixels go straight
into their final array. With a limit, the training images are chosen by their labels, and the others are not decoded;
the set is then known by its files.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from robust_nas.data.image_file import EXTENSIONS, layout, pixels
from robust_nas.data.images import Images, check_class_name
from robust_nas.data.reader import FILES, Choose, DatasetReader, Parts, Remark, SplitBy
from robust_nas.errors import DataError
from robust_nas.lazy import torch

LAYOUT = "train/<class>/*.png|jpg|webp|bmp|tif and test/<class>/*.png|jpg|webp|bmp|tif are needed"


class _Files(NamedTuple):
    """The image files of a folder, each with its label."""

    train: list[tuple[int, str]]
    test: list[tuple[int, str]]
    class_names: tuple[str, ...]
    others: list[str]  # that are passed over


class ImageFolder(DatasetReader):
    """A folder of images (PNG, JPEG, WebP, BMP, TIFF), a folder a class."""

    files: ClassVar[str] = "the folder of the images"
    where: ClassVar[str] = LAYOUT
    split_by: ClassVar[SplitBy] = "user"

    name: Literal["image-folder"] = "image-folder"

    def read(self, path: Path | None) -> Parts:
        """Return training images, test images and class names; [N, C, H, W] with C = 1 (grey) or 3 (RGB)."""
        assert path is not None  # noqa: S101 - `location` has refused it
        return read_image_folder(path)

    def read_chosen(self, path: Path | None, choose: Choose) -> Parts:
        """Return the same with the training images at the indices of `choose(labels)` alone."""
        assert path is not None  # noqa: S101 - `location` has refused it
        return read_image_folder(path, choose)

    def digest(self, path: Path | None) -> str:
        """Return a digest of the names and the bytes of all image files."""
        assert path is not None  # noqa: S101 - `location` has refused it
        files = _listed(path)
        digest = hashlib.sha256()
        for _, file in files.train + files.test:
            try:
                with open(file, "rb", buffering=0) as stream:
                    content = hashlib.sha256(stream.read()).hexdigest()
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error}") from None
            digest.update(os.fsencode(f"{content} {file.removeprefix(str(path))}\n"))
        return FILES + digest.hexdigest()

    def remarks(self, path: Path | None) -> tuple[Remark, ...]:
        """Return how many files are no images that are read, and which."""
        assert path is not None  # noqa: S101 - `location` has refused it
        return _passed_over(_listed(path).others)


def read_image_folder(root: Path, choose: Choose | None = None) -> Parts:
    """Return training images, test images and class names; [N, C, H, W] with C = 1 (grey) or 3 (RGB).

    Raises `DataError`, naming the file or folder, for a part or class without images, a test class that
    `train` does not have, an image that cannot be decoded or has another size than the first, and a link that
    leaves `root`.
    """
    train, test, names, _ = _listed(root)
    if choose is not None:
        labels = torch.tensor([label for label, _ in train], dtype=torch.int64)
        train = [train[index] for index in choose(labels).tolist()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on palettes and metadata; sizes are checked here
        width, height, mode = _common_layout([path for _, path in train + test])
        training = _decode(train, width, height, mode)
        return Parts(training, _decode(test, width, height, mode), names)


def _listed(root: Path) -> _Files:
    """Return the image files of both parts by class, and the files that are passed over."""
    other: list[str] = []
    train, test = _list_part(root, "train", other), _list_part(root, "test", other)
    names = tuple(train)
    if len(names) < 2:
        raise DataError(f"{root / 'train'}: {len(names)} class ({names[0]}); at least two are needed")
    forms: dict[str, str] = {}
    for name in (*train, *test):
        if (first := forms.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            raise DataError(
                f"{root}: classes {first!a} and {name!a} are one text in two forms; rename one of them"
            )
    for name in test:
        if name not in train:
            raise DataError(f"{root / 'test' / name}: no class {name!r} in train; it has {', '.join(names)}")
    return _Files(
        [(label, path) for label, name in enumerate(names) for path in train[name]],
        [(label, path) for label, name in enumerate(names) for path in test.get(name, [])],
        names,
        other,
    )


def _passed_over(files: list[str]) -> tuple[Remark, ...]:
    if not files:
        return ()
    kinds = Counter(os.path.splitext(path)[1].lower() or "without a suffix" for path in files).most_common(5)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds)
    passed = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    text = f"{passed} passed over ({counted}; the first is {os.path.basename(files[0])[:100]})"
    return (
        Remark(text, f"put images among them into the folder of a class, as one of {', '.join(EXTENSIONS)}"),
    )


def _list_part(root: Path, part: str, other: list[str]) -> dict[str, list[str]]:
    """Return the image files of each class, classes and files in natural order; add other files to `other`."""
    try:
        entries = _entries(root / part, root)
        folders = [entry for entry in entries if entry.is_dir()]
        for folder in folders:
            check_class_name(folder.name, root / part)
        classes = {folder.name: _list_class(folder, root, other) for folder in folders}
        other += [entry.path for entry in entries if entry.is_file()]
    except OSError as error:
        raise DataError(f"{root / part}: cannot be listed: {error}; {LAYOUT}") from None
    if not classes:
        raise DataError(f"{root / part}: no class folder; {LAYOUT}")
    return classes


def _list_class(folder: os.DirEntry[str], root: Path, other: list[str]) -> list[str]:
    paths: list[str] = []
    for entry in _files_in(_entries(Path(folder.path), root), root):
        (paths if entry.name.lower().endswith(EXTENSIONS) else other).append(entry.path)
    if not paths:
        raise DataError(f"{folder.path}: no {', '.join(EXTENSIONS)} file in this class folder; {LAYOUT}")
    return paths


def _files_in(entries: Iterable[os.DirEntry[str]], root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files among the entries, and those of the folders among them; a folder that is a link may be a loop."""
    for entry in entries:
        if entry.is_file():
            yield entry
        elif entry.is_symlink():
            raise DataError(
                f"{entry.path}: a link to a folder inside a class folder; links to images are taken"
            )
        elif entry.is_dir():
            yield from _files_in(_entries(Path(entry.path), root), root)


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


def _common_layout(paths: list[str]) -> tuple[int, int, str]:
    """Return width, height and mode (L or RGB) that serve every image."""
    first: tuple[int, int] | None = None
    grey = True
    for path in paths:
        width, height, is_grey = layout(path)
        first = first or (width, height)
        if (width, height) != first:
            raise DataError(
                f"{path}: {width}x{height} pixels, but {paths[0]} has {first[0]}x{first[1]}; "
                "all images must have one size"
            )
        grey = grey and is_grey
    if first is None:
        raise DataError(f"no images; {LAYOUT}")
    return first[0], first[1], "L" if grey else "RGB"


def _decode(files: list[tuple[int, str]], width: int, height: int, mode: str) -> Images:
    decoded = np.empty((len(files), height, width, len(mode)), dtype=np.uint8)  # L: one channel, RGB: three
    for index, (_, path) in enumerate(files):
        decoded[index] = pixels(path, mode).reshape(height, width, len(mode))
    labels = torch.tensor([label for label, _ in files], dtype=torch.int64)
    return Images(torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous(), labels)

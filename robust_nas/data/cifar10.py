"""CIFAR-10 (Krizhevsky 2009), binary version, from its folder or from the official archive.

Five training files and one test file of 10,000 records; a record is one label byte and 3,072 pixel bytes
(red, green, blue planes, row-major). The "python version" is made of pickles, which can run code when read:
it is never opened. The archive is read as a stream, by allow-list, and never extracted: Python 3.11's
extraction filters can be bypassed, and a stream cannot be sent backwards by a forged size.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robust_nas.data.images import Images, check_labels
from robust_nas.data.reader import DatasetReader, Parts, SplitBy
from robust_nas.errors import DataError
from robust_nas.lazy import torch

WHERE = "get the binary version, https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
NAMES_FILE = "batches.meta.txt"
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
IMAGES_PER_FILE = 10_000
MAX_NAMES_BYTES = 4096
MAX_MEMBERS = 64  # the official archive has 9
PYTHON_HINT = "the python version, whose pickles can run code, is not read; the binary version is needed: "
# What gzip and tarfile raise on a forged or truncated archive; chained long-name headers recurse.
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


class CIFAR10(DatasetReader):
    """CIFAR-10 in its binary version (Krizhevsky 2009)."""

    files: ClassVar[str] = "the folder or archive of its files"
    where: ClassVar[str] = WHERE
    split_by: ClassVar[SplitBy] = "publishers"

    name: Literal["cifar10"] = "cifar10"

    def read(self, path: Path | None) -> Parts:
        """Return 50,000 training images, 10,000 test images and the class names; [N, 3, 32, 32]."""
        assert path is not None  # noqa: S101 - `location` has refused it
        return read_cifar10(path)


def read_cifar10(path: Path, *, images_per_file: int = IMAGES_PER_FILE) -> Parts:
    """Return training images, test images and class names; [N, 3, 32, 32].

    Args:
        path: the folder with the .bin files, a folder that holds it or the archive, or the archive.
        images_per_file: 10,000 in the official set.

    Raises:
        DataError: a file is missing, has another size, or holds a label above 9; the archive is damaged or
            holds something else in their place.
    """
    size = images_per_file * RECORD_BYTES
    if path.is_dir():
        for folder in (path, path / FOLDER):
            if any((folder / name).is_file() for name in (*TRAIN_FILES, TEST_FILE)):
                source, files = folder, _read_folder(folder, size)
                break
        else:
            source = path / ARCHIVE
            if not source.is_file():
                raise DataError(_missing(path))
            files = _read_archive(source, size)
    elif path.is_file():
        source, files = path, _read_archive(path, size)
    else:
        raise DataError(f"{path}: no such folder or file; {WHERE}")

    parts = {}
    for name in (*TRAIN_FILES, TEST_FILE):
        if name not in files:
            raise DataError(f"{source}: no file {name}; {WHERE}")
        parts[name] = _decode(files.pop(name), size, f"{source}/{name}")
    train = Images(
        torch.cat([parts[name].pixels for name in TRAIN_FILES]),
        torch.cat([parts[name].labels for name in TRAIN_FILES]),
    )
    names = _class_names(files[NAMES_FILE], f"{source}/{NAMES_FILE}") if NAMES_FILE in files else CLASS_NAMES
    return Parts(train, parts[TEST_FILE], names)


def _missing(folder: Path) -> str:
    traces = ("data_batch_1", "cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz")
    if any((folder / trace).is_file() for trace in traces):
        return f"{folder}: {PYTHON_HINT}{WHERE}"
    return f"{folder}: no {TRAIN_FILES[0]}, no {FOLDER}, no {ARCHIVE}; {WHERE}"


def _read_folder(folder: Path, size: int) -> dict[str, bytes]:
    """Return the contents of the files that are there, each cut one byte after the size it may have."""
    files = {}
    for name in (*TRAIN_FILES, TEST_FILE, NAMES_FILE):
        path = folder / name
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    files[name] = stream.read((MAX_NAMES_BYTES if name == NAMES_FILE else size) + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
    return files


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes: a small archive can decompress without end."""

    def __init__(self, stream: gzip.GzipFile, limit: int, source: Path) -> None:
        super().__init__()
        self.stream, self.limit, self.left, self.source = stream, limit, limit, source
        self.ended = False

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes; raise `DataError` beyond the limit."""
        data = self.stream.read(size)
        if (
            not data and self.ended
        ):  # tarfile passes over a forged size of 2**60 block by block, even after the end
            raise EOFError("a member is declared larger than the archive")
        self.ended = not data
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.source}: unpacks to more than {self.limit} bytes; {WHERE}")
        return data


def _read_archive(path: Path, size: int) -> dict[str, bytes]:
    """Return the contents of the allowed members; others are passed over unread."""
    allowed = {f"{FOLDER}/{name}": name for name in (*TRAIN_FILES, TEST_FILE, NAMES_FILE)}
    files: dict[str, bytes] = {}
    python = False
    try:
        with gzip.open(path) as unpacked:
            bounded = _Bounded(unpacked, 6 * size + 2**20, path)
            with tarfile.open(fileobj=bounded, mode="r|", bufsize=2**17) as archive:
                for count, member in enumerate(archive):
                    if count >= MAX_MEMBERS:
                        raise DataError(f"{path}: more than {MAX_MEMBERS} members; {WHERE}")
                    python = python or member.name.startswith("cifar-10-batches-py")
                    if member.name not in allowed:
                        continue
                    name = allowed[member.name]
                    if name in files:
                        raise DataError(f"{path}: {member.name} is there twice; {WHERE}")
                    files[name] = _read_member(archive, member, path, size)
    except DAMAGE as error:
        raise DataError(f"{path}: not a readable .tar.gz, or truncated: {error}; {WHERE}") from None
    if python:
        raise DataError(f"{path}: {PYTHON_HINT}{WHERE}")
    return files


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, size: int) -> bytes:
    source = f"{path}/{member.name}"
    if not member.isreg() or member.issparse():
        raise DataError(f"{source}: not a regular file; {WHERE}")
    largest = MAX_NAMES_BYTES if member.name.endswith(NAMES_FILE) else size
    if not 0 <= member.size <= largest:
        raise DataError(f"{source}: {member.size} bytes; at most {largest} are accepted; {WHERE}")
    stream = archive.extractfile(member)
    return stream.read() if stream else b""


def _decode(content: bytes, size: int, source: str) -> Images:
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else str(len(content))
        raise DataError(
            f"{source}: {found} bytes; {size} are needed "
            f"({size // RECORD_BYTES} records of {RECORD_BYTES}); {WHERE}"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    check_labels(labels, len(CLASS_NAMES), source)
    return Images(torch.from_numpy(records[:, 1:].reshape(-1, *SHAPE).copy()), labels)


def _class_names(content: bytes, source: str) -> tuple[str, ...]:
    if len(content) > MAX_NAMES_BYTES:
        raise DataError(f"{source}: more than {MAX_NAMES_BYTES} bytes; ten class names are needed")
    try:
        names = tuple(line.strip() for line in content.decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not text: {error}; ten class names are needed") from None
    if len(names) != len(CLASS_NAMES) or len(set(names)) != len(names):
        raise DataError(f"{source}: names {', '.join(names)}; ten different class names are needed")
    return names

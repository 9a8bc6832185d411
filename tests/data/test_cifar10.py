"""The CIFAR-10 reader: round trips from folder and archive, damage, pickles, hostile archives."""

import gzip
import io
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.data import DataOptions, Images, load_dataset
from robust_nas.data.cifar10 import (
    ARCHIVE,
    CLASS_NAMES,
    FOLDER,
    RECORD_BYTES,
    TEST_FILE,
    TRAIN_FILES,
    read_cifar10,
)
from robust_nas.errors import DataError

PER_FILE = 10  # instead of 10,000
RECORDS = np.random.default_rng(0).integers(0, 256, (6, PER_FILE, RECORD_BYTES), dtype=np.uint8)
RECORDS[:, :, 0] = np.arange(PER_FILE) % 10
FILES = {name: RECORDS[i].tobytes() for i, name in enumerate((*TRAIN_FILES, TEST_FILE))}
NAMES = ("\n".join(CLASS_NAMES) + "\n\n").encode()


def read(path: Path) -> tuple[Images, Images, tuple[str, ...]]:
    return read_cifar10(path, images_per_file=PER_FILE)


def write_folder(folder: Path, changed: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **(changed or {})}.items():
        (folder / name).write_bytes(content)
    return folder


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info


def write_archive(path: Path, extra: list[tuple[tarfile.TarInfo, bytes]] = [], leave: str = "") -> Path:  # noqa: B006
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.addfile(member(FOLDER, kind=tarfile.DIRTYPE))
        for name, content in FILES.items():
            if name != leave:
                archive.addfile(member(f"{FOLDER}/{name}", content), io.BytesIO(content))
        for info, content in extra:
            archive.addfile(info, io.BytesIO(content))
    return path


def is_whole(parts: tuple[Images, Images, tuple[str, ...]]) -> bool:
    train, test, names = parts
    expected = RECORDS[:, :, 1:].reshape(6, PER_FILE, 3, 32, 32)
    return (
        np.array_equal(train.pixels.numpy(), expected[:5].reshape(-1, 3, 32, 32))
        and np.array_equal(test.pixels.numpy(), expected[5])
        and train.labels.tolist() == list(range(10)) * 5
        and names == CLASS_NAMES
    )


def test_round_trip_from_the_folder_its_parent_and_the_archive(tmp_path: Path) -> None:
    write_folder(tmp_path / "unpacked" / FOLDER, {"batches.meta.txt": NAMES})
    (tmp_path / "packed").mkdir()
    archive = write_archive(tmp_path / "packed" / ARCHIVE)
    for path in (tmp_path / "unpacked" / FOLDER, tmp_path / "unpacked", archive, archive.parent):
        assert is_whole(read(path))


def test_names_come_from_the_meta_file(tmp_path: Path) -> None:
    names = tuple("abcdefghij")
    assert read(write_folder(tmp_path, {"batches.meta.txt": "\n".join(names).encode()}))[2] == names


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"data_batch_2.bin": FILES["data_batch_2.bin"][:-1]},
            r"data_batch_2.bin: 30729 bytes; 30730 are needed",
        ),
        ({"data_batch_2.bin": FILES["data_batch_2.bin"] + b"\0"}, "data_batch_2.bin: more than 30730 bytes"),
        ({"test_batch.bin": FILES["test_batch.bin"][:RECORD_BYTES]}, "test_batch.bin: 3073 bytes"),
        (
            {"test_batch.bin": b"\x0a" + FILES["test_batch.bin"][1:]},
            "test_batch.bin: label 10 of image 0; .* 0 to 9",
        ),
        ({"batches.meta.txt": b"cat\ndog"}, "batches.meta.txt: names cat, dog; ten different"),
        ({"batches.meta.txt": b"\xff" * 9}, "batches.meta.txt: not text"),
        ({"batches.meta.txt": b"x" * 5000}, "batches.meta.txt: more than 4096 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, changed: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write_folder(tmp_path, changed))


def test_official_sizes_are_the_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1.bin: 30730 bytes; 30730000 are needed"):
        load_dataset(DataOptions(name="cifar10", path=str(write_folder(tmp_path))))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path / "a") / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"no file data_batch_3\.bin.*cifar-10-binary"):
        read(tmp_path / "a")
    with pytest.raises(DataError, match=r"no file data_batch_4\.bin"):
        read(write_archive(tmp_path / "a.tar.gz", leave="data_batch_4.bin"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no data_batch_1.bin, no cifar-10-batches-bin"):
        read(tmp_path / "empty")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_pickles_are_named_and_never_read(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(exist_ok=True)
    (tmp_path / inner / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"python version.*not read; the binary version is needed: get"):
        read(tmp_path)


def test_the_pickle_archive_is_named(tmp_path: Path) -> None:
    content = pickle.dumps(Bomb())
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member("cifar-10-batches-py/data_batch_1", content), io.BytesIO(content))
    for place in (path, tmp_path):
        with pytest.raises(DataError, match="python version"):
            read(place)


@pytest.mark.parametrize(
    "extra",
    [
        member("../evil", b"x"),
        member("/evil", b"x"),
        member(f"{FOLDER}/../{FOLDER}/batches.meta.txt", b"x"),
        member("link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("device", kind=tarfile.CHRTYPE),
    ],
)
def test_other_members_are_passed_over_and_nothing_is_written(tmp_path: Path, extra: tarfile.TarInfo) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", [(extra, b"x" * extra.size)])
    assert is_whole(read(archive))
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_an_allowed_name_must_be_a_regular_file(tmp_path: Path, kind: bytes) -> None:
    extra = member(f"{FOLDER}/data_batch_1.bin", kind=kind, link="/etc/passwd")
    with pytest.raises(DataError, match=r"data_batch_1.bin: not a regular file"):
        read(write_archive(tmp_path / "a.tar.gz", [(extra, b"")], leave="data_batch_1.bin"))


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    content = FILES["data_batch_1.bin"]
    with pytest.raises(DataError, match=r"data_batch_1.bin is there twice"):
        read(write_archive(tmp_path / "a.tar.gz", [(member(f"{FOLDER}/data_batch_1.bin", content), content)]))


def test_too_large_a_member_is_refused_unread(tmp_path: Path) -> None:
    content = FILES["data_batch_1.bin"] + b"\0"
    extra = (member(f"{FOLDER}/data_batch_1.bin", content), content)
    with pytest.raises(DataError, match="30731 bytes; at most 30730"):
        read(write_archive(tmp_path / "a.tar.gz", [extra], leave="data_batch_1.bin"))


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(4 * 2**20)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(write_archive(tmp_path / "a.tar.gz", [(member("zeros", zeros), zeros)]))
    many = [(member(f"file{number}"), b"") for number in range(80)]
    with pytest.raises(DataError, match="more than 64 members"):
        read(write_archive(tmp_path / "b.tar.gz", many))


@pytest.mark.parametrize("size", [-1024, 2**60])
def test_a_size_that_would_loop_is_refused(tmp_path: Path, size: int) -> None:
    info = member("loop")
    info.size = size
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(DataError):
        read(tmp_path / "a.tar.gz")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    for content in (b"", b"hello", gzip.compress(b""), gzip.compress(b"hello" * 500)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a.tar.gz"):
            read(path)


@pytest.fixture(scope="module")
def archive_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_archive(tmp_path_factory.mktemp("cifar") / ARCHIVE).read_bytes()


@given(share=st.floats(0, 0.95))
@settings(max_examples=30, deadline=None)
def test_truncation_anywhere_is_a_data_error(archive_bytes: bytes, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARCHIVE
        path.write_bytes(archive_bytes[: int(share * len(archive_bytes))])
        with pytest.raises(DataError):
            read(path)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_forged_headers_raise_only_data_errors(archive_bytes: bytes, data: st.DataObject) -> None:
    raw = bytearray(gzip.decompress(archive_bytes)[:40_000])
    headers = [0, 512]  # of the folder and of the first file
    place = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
    raw[place : place + 12] = data.draw(st.binary(min_size=12, max_size=12))
    for start in headers:  # with the right checksum, so that the forgery is believed
        raw[start + 148 : start + 156] = b" " * 8
        raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + 512])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARCHIVE
        path.write_bytes(gzip.compress(bytes(raw), 1))
        with pytest.raises(DataError):
            read(path)

"""The image-folder reader: round trips, order, one size, one mode, damage, links."""

import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from dataset_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robust_nas.data import DataOptions, load_dataset
from robust_nas.data.image_folder import natural_key, read_image_folder
from robust_nas.errors import DataError

RANDOM = np.random.default_rng(0)


COLOUR = RANDOM.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8)


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def whole(images: np.ndarray = COLOUR) -> dict[str, bytes]:
    places = (
        "train/a/1.png",
        "train/a/2.png",
        "train/b/1.png",
        "train/b/2.png",
        "test/a/1.png",
        "test/b/1.png",
    )
    return {place: png(image) for place, image in zip(places, images, strict=True)}


@pytest.mark.parametrize("images", [COLOUR, GREY])
def test_png_round_trip(tmp_path: Path, images: np.ndarray) -> None:
    train, test, names = read_image_folder(write(tmp_path, whole(images)))
    channels_last = images if images.ndim == 4 else images[..., None]
    assert np.array_equal(train.pixels.permute(0, 2, 3, 1).numpy(), channels_last[:4])
    assert np.array_equal(test.pixels.permute(0, 2, 3, 1).numpy(), channels_last[4:])
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 1]
    assert names == ("a", "b")


def test_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    files = whole()
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(buffer, "JPEG")
    del files["train/a/1.png"]
    write(tmp_path, {**files, "train/a/1.JPG": buffer.getvalue()})
    train, _, _ = read_image_folder(tmp_path)
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    assert np.array_equal(train.pixels[0].permute(1, 2, 0).numpy(), expected)


def test_one_colour_image_makes_all_rgb(tmp_path: Path) -> None:
    write(tmp_path, {**whole(GREY), "test/b/1.png": png(COLOUR[5])})
    train, test, _ = read_image_folder(tmp_path)
    assert train.pixels.shape == (4, 3, 5, 4)
    assert np.array_equal(train.pixels[0].numpy(), np.stack([GREY[0]] * 3))
    assert np.array_equal(test.pixels[1].permute(1, 2, 0).numpy(), COLOUR[5])


def test_alpha_is_dropped_and_palettes_are_resolved(tmp_path: Path) -> None:
    flat = np.full((5, 4, 3), (255, 0, 0), dtype=np.uint8)
    write(tmp_path, {**whole(), "train/a/1.png": png(COLOUR[0], "RGBA"), "train/a/2.png": png(flat, "P")})
    train, _, _ = read_image_folder(tmp_path)
    assert np.array_equal(train.pixels[0].permute(1, 2, 0).numpy(), COLOUR[0])
    assert np.array_equal(train.pixels[1].permute(1, 2, 0).numpy(), flat)


def test_classes_and_files_are_in_natural_order(tmp_path: Path) -> None:
    image = png(GREY[0])
    names = ["class1", "class2", "class10"]
    write(tmp_path, {f"{part}/{name}/0.png": image for part in ("train", "test") for name in names})
    write(tmp_path, {"train/class1/10.png": png(GREY[1]), "train/class1/9.png": png(GREY[2])})
    train, _, found = read_image_folder(tmp_path)
    assert list(found) == names
    assert np.array_equal(train.pixels[:3, 0].numpy(), GREY[[0, 2, 1]])


@given(st.lists(st.text(max_size=8)))
@settings(deadline=None)
def test_natural_order_is_total(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    others = ("train/.cache/x.png", "train/a/.x.png", "train/a/notes.txt", "train/x")
    write(tmp_path, {**whole(), **dict.fromkeys(others, b"")})
    assert len(read_image_folder(tmp_path)[0]) == 4


def test_a_test_class_without_images_may_be_left_out(tmp_path: Path) -> None:
    files = whole()
    del files["test/b/1.png"]
    assert read_image_folder(write(tmp_path, files))[1].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train/b/2.png": png(COLOUR[0, :4])}, r"train/b/2.png: 4x4 pixels, but .*train/a/1.png has 4x5"),
        ({"test/b/1.png": b"not an image"}, "test/b/1.png: cannot be decoded"),
        ({"test/b/1.png": b""}, "test/b/1.png: cannot be decoded"),
        ({"test/b/1.png": b"GIF89a" + bytes(50)}, "test/b/1.png: cannot be decoded"),
        ({"test/c/1.png": png(COLOUR[0])}, "test/c: no class 'c' in train; it has a, b"),
        ({"train/c/notes.txt": b""}, "train/c: no .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff file"),
        ({"train/b/2.png": png(np.zeros((5, 4), dtype=np.uint16))}, "train/b/2.png: pixel mode I;16; 8-bit"),
    ],
)
def test_damage_is_named(tmp_path: Path, changed: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image_folder(write(tmp_path, {**whole(), **changed}))


def test_parts_and_classes_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train: cannot be listed"):
        read_image_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="train: no class folder"):
        read_image_folder(tmp_path)
    write(tmp_path, {"train/a/1.png": png(GREY[0]), "test/a/1.png": png(GREY[0])})
    with pytest.raises(DataError, match=r"1 class \(a\); at least two"):
        read_image_folder(tmp_path)


@given(st.sampled_from(["PNG", "JPEG"]), st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_truncation_is_a_data_error_or_harmless(kind: str, share: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(buffer, kind)
    content = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), {**whole(), "train/a/1.png": content[: int(share * len(content))]})
        try:
            train, _, _ = read_image_folder(Path(folder))
        except DataError as error:
            assert "train/a/1.png" in str(error)  # noqa: PT017 - both outcomes are right
        else:  # only the end mark is lost
            assert np.array_equal(train.pixels[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("side", [5000, 12000, 60000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"train/a/1.png: .*pixels"):
        read_image_folder(write(tmp_path, {**whole(), "train/a/1.png": bomb}))


@pytest.mark.parametrize("place", ["train/a/9.png", "train/c", "test"])
def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path, place: str) -> None:
    write(tmp_path / "outside", {"1.png": png(COLOUR[0]), "a/1.png": png(COLOUR[0])})
    root = write(tmp_path / "root", {k: v for k, v in whole().items() if not k.startswith(f"{place}/")})
    (root / place).symlink_to(tmp_path / "outside" / ("1.png" if place.endswith(".png") else "."))
    with pytest.raises(DataError, match=f"{place}: a link to .*outside"):
        read_image_folder(root)


def test_links_inside_the_root_are_followed_and_broken_ones_named(tmp_path: Path) -> None:
    root = write(tmp_path / "root", whole())
    (root / "train/a/3.png").symlink_to("1.png")
    (tmp_path / "alias").symlink_to(root)
    for path in (root, tmp_path / "alias"):
        assert len(read_image_folder(path)[0]) == 5
    (root / "train/a/4.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"4\.png: a link that leads nowhere"):
        read_image_folder(root)


def test_load_dataset_reads_it(tmp_path: Path) -> None:
    found = load_dataset(DataOptions(name="image-folder", path=str(write(tmp_path, whole()))))
    assert found.shape == (3, 5, 4)
    assert found.class_names == ("a", "b")


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"red\x1b[31m", "line\u2028break".encode()])
def test_a_class_name_that_no_figure_or_table_can_hold_is_refused_before_an_image_is_read(
    tmp_path: Path, name: bytes
) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"train", name)
    os.makedirs(folder)
    with pytest.raises(DataError, match=r"train: class name '.*\\.*'; UTF-8 text without control") as caught:
        read_image_folder(tmp_path)
    str(caught.value).encode()  # can be printed


def test_any_other_text_is_a_class_name(tmp_path: Path) -> None:
    names = ("$x$ {b} \\", "\u732b", "a\u00a0b \u3000")
    files = {f"{part}/{name}/1.png": png(COLOUR[0]) for part in ("train", "test") for name in names}
    assert set(read_image_folder(write(tmp_path, files)).class_names) == set(names)


@pytest.mark.parametrize("part", ["train", "test"])
def test_two_forms_of_one_class_name_are_refused(tmp_path: Path, part: str) -> None:
    files = whole()  # an accent as one letter, and as two: a folder that came from a Mac
    files |= {place.replace("/b/", "/\u00e9/"): files.pop(place) for place in list(files) if "/b/" in place}
    files[f"{part}/e\u0301/1.png"] = png(COLOUR[0])
    with pytest.raises(
        DataError, match=r"classes '\\xe9' and 'e\\u0301' are one text in two forms|and '\\xe9'"
    ):
        read_image_folder(write(tmp_path, files))

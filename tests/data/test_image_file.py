"""What one image file means: orientation, transparency, palettes, depth, colours, frames; and what is passed over."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from robust_nas.data import DataOptions, image_folder, load_dataset
from robust_nas.data.image_file import EXTENSIONS, layout, pixels
from robust_nas.data.image_folder import read_image_folder
from robust_nas.errors import DataError, DataWarning

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (5, 4, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (5, 4), dtype=np.uint8)
LOSSLESS = {".webp": {"lossless": True}, ".jpg": {"quality": 100}, ".jpeg": {"quality": 100}}


def saved(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)
    return str(path)


def folder(root: Path, **more: bytes) -> Path:
    """Write two classes of one grey image each in both parts, and more files."""
    for place in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY if "train" in place else 255 - GREY).save(root / place)
    for place, content in more.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)
    return root


def load(root: Path, **options: int):
    return load_dataset(DataOptions(name="image-folder", path=str(root), **options))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_is_read(tmp_path, extension):
    path = saved(tmp_path / f"x{extension}", Image.fromarray(COLOUR), **LOSSLESS.get(extension, {}))
    assert layout(path) == (4, 5, False)
    if extension not in (".jpg", ".jpeg"):
        assert np.array_equal(pixels(path, "RGB"), COLOUR)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_photographs_stand_upright(tmp_path, kind, orientation):
    image, exif = Image.fromarray(COLOUR), Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"x.{kind}", image, exif=exif)
    with Image.open(path) as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert np.array_equal(pixels(path, "RGB"), wanted)
    assert layout(path)[:2] == (wanted.shape[1], wanted.shape[0])
    assert (wanted.shape[:2] == (4, 5)) is (orientation in (5, 6, 7, 8))


def test_an_orientation_at_the_end_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = Path(saved(tmp_path / "x.png", Image.fromarray(COLOUR), exif=exif))
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    path.write_bytes(data.replace(chunk, b"").replace(data[-12:], chunk + data[-12:]))
    assert layout(str(path))[:2] == (5, 4)
    assert np.array_equal(pixels(str(path), "RGB"), np.rot90(COLOUR, -1))


def transparent():
    palette = Image.new("P", (4, 5), 1)
    palette.putpalette([9, 9, 9, 255, 0, 0])
    return palette


@pytest.mark.parametrize(
    ("image", "options", "grey", "wanted"),
    [
        (Image.fromarray(np.dstack([COLOUR, GREY])), {}, False, COLOUR),  # alpha is dropped
        (Image.merge("LA", [Image.fromarray(GREY)] * 2), {}, True, GREY),
        (transparent(), {"transparency": 1}, False, np.full((5, 4, 3), (255, 0, 0))),
        (Image.fromarray(GREY > 99), {}, True, np.where(GREY > 99, 255, 0)),  # 1 bit
    ],
)
def test_transparency_palettes_and_one_bit(tmp_path, image, options, grey, wanted):
    path = saved(tmp_path / "x.png", image, **options)
    assert layout(path)[2] is grey
    assert np.array_equal(pixels(path, "L" if grey else "RGB"), wanted)


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_is_converted_to_rgb(tmp_path, kind):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(saved(tmp_path / f"x.{kind}", image), "RGB").astype(int) - (255, 0, 0)).max() < 4


def sixteen_bit_png(path: Path, image: np.ndarray, colour_type: int) -> str:
    """Write a PNG whose samples `[H, W, C]` have the image's values as their high bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image.astype(np.uint16) * 256 + 200)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, colour_type, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(data)
    return str(path)


def test_sixteen_bit_colour_is_read_at_its_high_byte(tmp_path):
    assert np.array_equal(pixels(sixteen_bit_png(tmp_path / "x.png", COLOUR, 2), "RGB"), COLOUR)


def test_sixteen_bit_grey_is_refused_with_alpha_too(tmp_path):
    for colour_type, image in ((0, GREY[..., None]), (4, COLOUR[..., :2])):  # Pillow gives the second as RGBA
        path = sixteen_bit_png(tmp_path / "x.png", image, colour_type)
        with pytest.raises(DataError, match="8-bit grey or colour is needed"):
            layout(path)


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        (
            "x.png",
            Image.fromarray(GREY.astype(np.uint16)),
            {},
            "pixel mode I;16; 8-bit grey or colour is needed",
        ),
        ("x.tif", Image.fromarray(GREY.astype(np.float32)), {}, "pixel mode F; 8-bit"),
        ("x.tif", Image.new("LAB", (4, 5)), {}, "pixel mode LAB; 8-bit"),
        ("x.png", Image.fromarray(COLOUR), {"save_all": True}, "2 frames or pages; one image a file"),
        ("x.webp", Image.fromarray(COLOUR), {"save_all": True}, "2 frames or pages"),
        ("x.tif", Image.fromarray(COLOUR), {"save_all": True}, "2 frames or pages"),
    ],
)
def test_what_is_no_still_8_bit_image_is_refused(tmp_path, name, image, options, message):
    more = {"append_images": [Image.fromarray(255 - COLOUR)]} if options else {}
    with pytest.raises(DataError, match=message):
        layout(saved(tmp_path / name, image, **options, **more))


def test_images_in_folders_inside_a_class_are_of_the_class(tmp_path):
    content = (folder(tmp_path) / "train/a/1.png").read_bytes()
    folder(tmp_path, **{"train/a/more/deep/2.png": content, "train/a/.hidden/3.png": content})
    assert read_image_folder(tmp_path)[0].labels.tolist() == [0, 0, 1]
    (tmp_path / "train/b/loop").symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match="train/b/loop: a link to a folder inside a class folder"):
        read_image_folder(tmp_path)


def test_what_is_passed_over_is_counted_and_said(tmp_path):
    others = ("train/a/2.gif", "train/a/3.gif", "test/b/notes.txt", "train/lost.png", "train/a/.hidden.gif")
    folder(tmp_path, **dict.fromkeys(others, b""))
    with pytest.warns(
        DataWarning, match=r"image-folder: 4 files are passed over \(2 .gif, .* 1 .txt.* 2.gif\)"
    ):
        (remark,) = load(tmp_path).warnings
    assert remark.text.startswith("4 files are passed over")


@pytest.mark.parametrize("limit", [None, 2])
def test_a_class_that_is_never_tested_is_said(tmp_path, limit):
    folder(tmp_path)
    (tmp_path / "test/b/1.png").unlink()
    (tmp_path / "test/b").rmdir()
    with pytest.warns(DataWarning, match="1 of 2 classes have no test image and are never tested: b"):
        load(tmp_path, limit=limit)


@pytest.mark.parametrize("limit", [None, 2])
def test_test_images_that_are_training_images_too_are_counted(tmp_path, limit):
    folder(tmp_path)
    Image.fromarray(GREY).save(tmp_path / "test/b/2.bmp")  # the same pixels in another file
    with pytest.warns(DataWarning, match="1 of 3 test images are training images too, pixel for pixel"):
        load(tmp_path, limit=limit)


def test_a_limit_chooses_before_anything_is_decoded(tmp_path, monkeypatch):
    for number in range(2, 9):
        folder(tmp_path, **{f"train/{name}/{number}.png": b"never decoded" for name in "ab"})
        for name in "ab":
            Image.fromarray(GREY // number).save(tmp_path / f"train/{name}/{number}.png")
    whole = load(tmp_path)
    read = []
    monkeypatch.setattr(image_folder, "pixels", lambda path, mode: read.append(path) or pixels(path, mode))
    few = load(tmp_path, limit=4)
    assert len(read) == 4 + 2
    assert {image.numpy().tobytes() for image in few.train.pixels} <= {
        image.numpy().tobytes() for image in whole.train.pixels
    }
    # A set is recognised, however it was read when its checksum was recorded.
    assert whole.checksum != few.checksum == load(tmp_path, limit=6).checksum
    assert whole.has_checksum(few.checksum)
    assert few.has_checksum(whole.checksum)
    Image.fromarray(GREY).save(tmp_path / "train/a/2.png")
    changed, fewer = load(tmp_path), load(tmp_path, limit=4)
    assert not any(changed.has_checksum(known.checksum) for known in (whole, few))
    assert not any(fewer.has_checksum(known.checksum) for known in (whole, few))


def test_the_checksum_of_plain_images_is_what_it_was(tmp_path):
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(np.full((6, 5, 3), 40 * number, dtype=np.uint8)).save(tmp_path / place / "1.png")
    assert load(tmp_path).checksum == "389f4c8e0c681d16a25f7dae51d3ca6be168d4578383e4b744e1157ea70823cd"

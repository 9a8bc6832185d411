"""What `Images` and `Dataset` promise, and what `load_dataset` does with options."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_nas.data import DataOptions, Dataset, Images, channel_statistics, load_dataset
from robust_nas.errors import ConfigError, DataError


def images(count: int = 6, classes: int = 3) -> Images:
    pixels = torch.randint(0, 256, (count, 2, 4, 5), generator=torch.Generator().manual_seed(0))
    return Images(pixels.to(torch.uint8), torch.arange(count) % classes)


def test_float_is_pixels_over_255() -> None:
    some = images()
    assert some.float().dtype == torch.float32
    assert torch.equal(some.float() * 255, some.pixels.float())
    chosen = torch.tensor([4, 1])
    assert torch.equal(some.float(chosen), some.float()[chosen])


def test_subset_keeps_order_and_labels() -> None:
    some = images()
    part = some.subset(torch.tensor([5, 0]))
    assert len(part) == 2
    assert torch.equal(part.pixels[0], some.pixels[5])
    assert part.labels.tolist() == [2, 0]


def test_images_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        images().labels = torch.zeros(6)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(2, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"\(3,\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "torch.float32"),
    ],
)
def test_wrong_tensors_are_refused(pixels: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Images(pixels, labels)


def test_dataset_refuses_labels_without_a_class_and_unequal_shapes() -> None:
    with pytest.raises(DataError, match="label 2 of image 2; labels go from 0 to 1"):
        Dataset("x", images(), images(), ("a", "b"), "")
    other = Images(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"\(2, 4, 5\)"):
        Dataset("x", images(), other, ("a", "b", "c"), "")
    with pytest.raises(DataError, match="test is empty"):
        Dataset("x", images(), images(0), ("a", "b", "c"), "")


def test_statistics_are_numpys() -> None:
    some = images(50)
    mean, deviation = channel_statistics(some)
    scaled = some.pixels.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)), abs=1e-12)
    assert deviation == pytest.approx(scaled.std((0, 2, 3)), abs=1e-12)


def test_a_constant_channel_has_deviation_one() -> None:
    grey = Images(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    mean, deviation = channel_statistics(grey)
    assert mean == pytest.approx((0.2,))
    assert deviation == (1.0,)


def test_limit_is_balanced_and_seeded_and_leaves_checksum_and_test_set() -> None:
    full = load_dataset(DataOptions())
    few = load_dataset(DataOptions(limit=50), seed=3)
    assert torch.bincount(few.train.labels).tolist() == [5] * 10
    assert few.checksum == full.checksum
    assert torch.equal(few.test.pixels, full.test.pixels)
    again = load_dataset(DataOptions(limit=50), seed=3)
    assert torch.equal(few.train.pixels, again.train.pixels)
    other = load_dataset(DataOptions(limit=50), seed=4)
    assert not torch.equal(few.train.pixels, other.train.pixels)
    assert len(load_dataset(DataOptions(limit=10**6)).train) == len(full.train)


def test_a_limit_below_the_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit: got 9; at least 10"):
        load_dataset(DataOptions(limit=9))


@pytest.mark.parametrize("name", ["cifar10", "image-folder"])
def test_a_path_is_asked_for(name: str) -> None:
    with pytest.raises(ConfigError, match="path: got None"):
        load_dataset(DataOptions(name=name))


def test_digits_take_no_path() -> None:
    with pytest.raises(ConfigError, match="takes no path"):
        load_dataset(DataOptions(path="somewhere"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "image-folder"])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_dataset(DataOptions(name=name, path=str(tmp_path / "nowhere")))


def test_options_load_without_torch_and_names_lazily() -> None:
    code = (
        "import sys; from robust_nas.data import Augment, DataOptions; import robust_nas.data as data;"
        "import robust_nas.data.splits, robust_nas.data.augmentation;"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules;"
        "assert all(hasattr(data, name) for name in data.__all__);"
        "assert not hasattr(data, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

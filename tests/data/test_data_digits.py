"""The embedded digits are scikit-learn's, split once and for all."""

import torch
from sklearn.datasets import load_digits

from robust_nas.data import DataOptions, load_dataset


def test_sizes_values_and_names() -> None:
    digits = load_dataset(DataOptions())
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10
    assert digits.class_names == tuple("0123456789")
    assert len(digits.train) == 1437
    assert len(digits.test) == 360
    levels = digits.train.pixels.unique().tolist()
    assert levels == [round(value * 255 / 16) for value in range(17)]


def test_every_image_is_there_once_with_its_label() -> None:
    digits = load_dataset(DataOptions())
    values, targets = load_digits(return_X_y=True)
    rows = [tuple(round(value * 255 / 16) for value in row) for row in values]
    source = sorted(zip(rows, targets.tolist(), strict=True))
    both = [
        (tuple(row), label)
        for part in (digits.train, digits.test)
        for row, label in zip(part.pixels.flatten(1).tolist(), part.labels.tolist(), strict=True)
    ]
    assert sorted(both) == source


def test_the_test_set_is_stratified() -> None:
    digits = load_dataset(DataOptions())
    test, train = torch.bincount(digits.test.labels), torch.bincount(digits.train.labels)
    assert (test - (test + train) / 5).abs().max() < 1.1


PINNED = "ece1d1aa1557403900f3cebab6177ddca49fb312b37f9f8ece0896e38e5e71ce"


def test_the_checksum_is_pinned() -> None:
    """Another test set would be another benchmark: committed results would no longer compare."""
    assert load_dataset(DataOptions()).checksum == PINNED

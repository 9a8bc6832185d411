"""Images that Python code hands over: every form gives the same dataset, the rest is refused with the reason."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from robust_nas.data import DATASETS, DataOptions, as_dataset, load_dataset
from robust_nas.errors import ConfigError, DataError, DataWarning


@pytest.fixture(scope="module")
def some():
    return load_dataset(DataOptions()).train.subset(torch.arange(24))


class Rows:
    """A dataset of the shape of Hugging Face's: rows are mappings, the columns have names and the labels features."""

    def __init__(self, columns, names=None):
        self.columns, self.column_names = columns, list(columns)
        self.features = {"label": type("ClassLabel", (), {"names": names})()} if names else {}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.columns.items()}


class Items(torch.utils.data.Dataset):
    def __init__(self, items, **more):
        self.items = items
        vars(self).update(more)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        return item() if callable(item) else item


def pictures(images):
    return [Image.fromarray(pixels[0].numpy()) for pixels in images.pixels]


def test_every_form_of_the_same_images_is_the_same_dataset(some):
    x, y = some.float(), some.labels
    pairs = TensorDataset(x, y)
    forms = [
        some,
        (x, y),
        (some.pixels.numpy(), y.tolist()),
        (x.double().numpy(), y.numpy().astype("u1")),
        pairs,
        Subset(TensorDataset(x.repeat(2, 1, 1, 1), y.repeat(2)), range(24)),
        DataLoader(pairs, batch_size=7, shuffle=True, drop_last=True),
        DataLoader(pairs, batch_sampler=torch.utils.data.BatchSampler(range(24), 5, False)),
        Items(list(zip(pictures(some), y.tolist(), strict=True))),
        Rows({"image": pictures(some), "label": y.tolist()}),
        Rows({"img": list(some.pixels[:, 0].numpy()), "labels": y.tolist(), "id": range(24)}),
        DataLoader(Rows({"image": list(x), "label": y.tolist()}), batch_size=5),
        {"train": (x, y)},
    ]
    expected = as_dataset(forms[0])
    assert expected.train.pixels.equal(some.pixels)
    assert (expected.split_by, len(expected.test), expected.classes) == ("nobody", 0, 10)
    for number, form in enumerate(forms):
        assert as_dataset(form).checksum == expected.checksum, number


def test_colours_and_names_are_taken_from_where_the_libraries_keep_them():
    pixels = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).reshape(2, 3, 6, 6)
    last = list(pixels.permute(0, 2, 3, 1).numpy())
    hugging = Rows({"image": last, "label": [0, 1]}, names=["cat", "dog"])
    drawn = Items(
        [(Image.fromarray(image), number) for number, image in enumerate(last)], classes=["cat", "dog"]
    )
    for data in (hugging, drawn, DataLoader(Subset(drawn, [0, 1]), collate_fn=lambda items: stacked(items))):
        found = as_dataset(data)
        assert (found.class_names, found.shape) == (("cat", "dog"), (3, 6, 6))
        assert found.train.pixels.equal(pixels)
    with pytest.warns(DataWarning, match="1 of 3 classes have no training image"):
        assert as_dataset((pixels, [0, 1]), class_names=["a", "b", "c"]).classes == 3


def stacked(items):
    images = np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in items])
    return images, np.array([label for _, label in items])


def test_test_images_come_along_and_those_in_both_parts_are_counted(some):
    both = {"train": (some.pixels, some.labels), "test": (some.pixels[:5], some.labels[:5])}
    with pytest.warns(DataWarning) as said:
        found = as_dataset(both)
    assert sorted("5 of 5 test images are training images" in str(one.message) for one in said) == [
        False,
        True,
    ]
    assert (len(found.test), found.split_by) == (5, "user")
    with pytest.raises(DataError, match="leave one of them out"):
        as_dataset(both, test=some)
    whole = load_dataset(DataOptions(limit=50))
    assert as_dataset(whole).class_names == whole.class_names
    assert as_dataset(whole).checksum != whole.checksum  # it is of the fifty images


X, Y = torch.linspace(0, 1, 6 * 64).reshape(6, 1, 8, 8).mul(255).round() / 255, torch.arange(6)
WRONG = [
    ((X[:0], Y[:0]), r"shape \(0, 1, 8, 8\); \[N, C, H, W\] is needed"),
    (Items([]), "data: Items is empty"),
    ((X[:, 0], Y), r"shape \(6, 8, 8\); .* images\[:, None\]"),
    ((X.repeat(1, 3, 1, 1).permute(0, 2, 3, 1), Y), r"8 channels of 8x3 pixels; .*permute\(0, 3, 1, 2\)"),
    ((X * 2 - 1, Y), r"go from -1 to 1; 0..1 is needed.*normalisation"),
    ((X * float("nan"), Y), "0..1 is needed"),
    (((X * 255).int(), Y), "images are torch.int32; uint8"),
    ((X, Y.float()), r"labels are torch.float32 of shape \(6,\); whole numbers"),
    ((X, torch.eye(6)), r"shape \(6, 6\); .*argmax\(1\)"),
    ((X, Y[:5]), r"shape \(5,\); whole numbers of shape \(6,\)"),
    ((X, Y - 1), "labels go from -1 to 4"),
    ((X, Y * 100), "labels go from 0 to 500 and are of 6 classes; number the classes from 0"),
    ((X, Y * 0), "has 1 class; at least 2"),
    (X, "one Tensor of shape .*, no labels"),
    (Items([(image, 0, 1) for image in X]), r"item 0 of Items is \(Tensor, int, int\)"),
    (Items([(X[0], 0), (X[0, :, :4], 1)]), "items of Items cannot be stacked"),
    (Items([lambda: 1 / 0]), "Items cannot be read: ZeroDivisionError"),
    (Items([(Image.new("RGBA", (8, 8)), 0)]), "mode 'RGBA'; L .grey. or RGB"),
    (Rows({"image": list(X), "fine_label": list(Y)}), r"columns image, fine_label; one of label or .*rename_column"),
    (Items([(lambda: (torch.rand(1, 8, 8), 0)), (lambda: (torch.rand(1, 8, 8), 1))]), "other images, or another order"),
    (DataLoader(TensorDataset(X, Y), 3, sampler=WeightedRandomSampler([1.0] * 6, 6)), "other images, or another order"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::robust_nas.errors.DataWarning")
@pytest.mark.parametrize(("data", "reason"), WRONG)
def test_what_is_no_set_of_pictures_is_refused_with_the_reason(data, reason):
    with pytest.raises(DataError, match=reason):
        as_dataset(data)


def test_labels_beyond_the_named_classes_are_refused():
    with pytest.raises(DataError, match="label 2 of image 2; labels go from 0 to 1"):
        as_dataset((X, Y), class_names=["a", "b"])
    with pytest.raises(DataError, match="test: images are of shape"):
        as_dataset((X, Y), test=(X[:, 0], Y))


def test_values_between_the_levels_of_a_picture_are_rounded_with_a_warning():
    with pytest.warns(DataWarning, match="between the 256 levels"):
        found = as_dataset((X * 0.3, Y))
    assert (found.train.float() - X * 0.3).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.warns(DataWarning, match="almost black"):
        as_dataset(((X * 1.0).round().to(torch.uint8), Y))


def test_the_dataset_of_a_record_says_where_its_images_are():
    assert check_location(DataOptions(name="in-memory", options={"checksum": "ab" * 32}))
    assert DATASETS.make("in-memory").name == "in-memory"


def check_location(options):
    with pytest.raises(
        ConfigError, match=r"data.name: got 'in-memory' \(checksum abababababab\); .*data.path=PATH"
    ):
        load_dataset(options)
    return True

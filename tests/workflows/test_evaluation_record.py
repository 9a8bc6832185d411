"""What the record of an evaluation says of images, split, weights and classes."""

from pathlib import Path

import pytest
import torch

from robust_nas.data import Dataset, Images, Remark
from robust_nas.workflows.evaluation_record import (
    AS_BUILT,
    Origin,
    images_tested,
    validation_warnings,
    warnings,
)


def dataset(split_by):
    images = Images(torch.zeros(7, 1, 2, 2, dtype=torch.uint8), torch.arange(7) % 2)
    return Dataset("dots", images, images, ("a", "b"), "sum", split_by)


@pytest.mark.parametrize(
    ("split_by", "said"),
    [
        ("publishers", "split by its publishers"),
        ("robust_nas", "split by robust_nas, for want of an official split"),
        ("user", "split by its user"),
    ],
)
def test_the_images_that_were_tested_and_whose_split_it_is(split_by, said):
    record = images_tested(dataset(split_by), 5, 3)
    assert record["text"] == f"5 of the 7 test images of dots ({said}; drawn with seed 3)"
    assert (record["split_by"], record["available"], record["images"]) == (split_by, 7, 5)


def test_classes_that_are_never_tested_or_trained_and_what_was_passed_over_are_warned_of():
    few = Images(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    more = Images(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2]))
    found = Dataset("dots", few, more, ("a", "b", "c"), "sum", remarks=(Remark("lost", "look"),))
    assert warnings(Origin(), found, 3)[0] == {"text": "lost", "advice": "look"}
    assert texts(warnings(Origin(), found, 3))[1:] == [
        "1 of 3 classes have no training image and are never trained: c",
        "1 of 3 classes have no test image and are never tested: b",
    ]


def texts(found):
    return [warning["text"] for warning in found]


def test_a_foreign_module_meets_a_split_that_is_ours():
    foreign = Origin.of_module("some/net.py:build", Path("some/net.safetensors"))
    assert foreign == Origin("net.py:build", "net.safetensors")
    (text,) = texts(warnings(foreign, dataset("robust_nas"), 2))
    assert text.startswith("net.py:build was not trained by robust_nas, which made this split")
    for other in ("publishers", "user"):
        assert warnings(foreign, dataset(other), 2) == []
    assert warnings(Origin(), dataset("robust_nas"), 2) == []
    compressed = Origin("net.py:build")  # a model folder that was made from a module
    assert texts(warnings(compressed, dataset("robust_nas"), 2)) == [text]


def test_a_foreign_module_has_probably_seen_the_validation_images_of_any_dataset():
    foreign = Origin.of_module("net.py:build", Path("net.safetensors"))
    for split_by in ("publishers", "robust_nas", "user"):
        (text,) = texts(validation_warnings(foreign, dataset(split_by)))
        assert "probably trained on the validation images" in text
    assert validation_warnings(Origin(), dataset("robust_nas")) == []


def test_weights_that_nobody_gave():
    built = Origin.of_module("net.py:build", None)
    assert built.weights == AS_BUILT
    assert texts(warnings(built, dataset("user"), 2)) == [
        "no weights were given for net.py:build: unless its function loads some, they are random"
    ]


@pytest.mark.parametrize(
    ("outputs", "effect"), [(3, "a further one can be an answer"), (1, "the others are always wrong")]
)
def test_other_classes_than_the_dataset_has(outputs, effect):
    foreign = Origin.of_module("net.py:build", Path("net.safetensors"))
    assert texts(warnings(foreign, dataset("user"), outputs)) == [
        f"the model has {outputs} classes, dots has 2: {effect}"
    ]

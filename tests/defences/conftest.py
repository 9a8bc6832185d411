"""Small models for the room of defences."""

import pytest

from robust_nas.nets import ModelDescription, build_network, inference_state, save_model
from robust_nas.spaces import Size, load_space, sample

SHAPE, CLASSES = (1, 8, 8), 4


def saved(folder, seed):
    architecture = sample(load_space("dsara"), 0, size=Size(cells=3, channels=2))
    description = ModelDescription(input_shape=SHAPE, class_names=tuple("abcd"), mean=(0.5,), std=(0.25,))
    network = build_network(
        architecture, input_shape=SHAPE, classes=CLASSES, mean=(0.5,), std=(0.25,), seed=seed
    )
    save_model(folder, architecture, inference_state(network), description)
    return folder


@pytest.fixture
def model_folder(tmp_path):
    return saved(tmp_path / "model", 0)


@pytest.fixture
def other_model_folder(tmp_path):
    return saved(tmp_path / "other", 1)

"""A defended model folder: loaded, known by its digest, refused where it was changed."""

import json

import pytest
import torch

from robust_nas.config import to_dict
from robust_nas.defences import Blur, StoredDefence
from robust_nas.errors import CheckpointError
from robust_nas.nets import inference_state, read_model, save_model


@pytest.fixture
def folder(model_folder, tmp_path):
    """Return a folder of the model with a blur around it."""
    return defended(read_model(model_folder), Blur(), tmp_path / "defended")


def defended(model, defence, folder, values=None):
    stored = StoredDefence.of(defence, values or {}, None, model.digest)
    description = model.description.model_copy(update={"defence": stored})
    state = inference_state(defence.wrap(model.network, values))
    save_model(folder, model.architecture, state, description)
    return folder


def test_it_is_the_wrapped_network_bit_for_bit(folder, model_folder):
    plain, found = read_model(model_folder), read_model(folder)
    images = torch.rand(3, *plain.description.input_shape)
    assert torch.equal(found.network(images), Blur().wrap(plain.network)(images))
    assert found.digest != plain.digest
    assert found.undefended.digest == plain.digest
    assert found.undefended.description == plain.description


def test_a_plain_model_has_no_key_of_a_defence(model_folder):
    assert "defence" not in json.loads((model_folder / "model.json").read_text())


def test_a_defence_without_tensors_is_sealed_as_it_always_was():
    stored = StoredDefence.of(Blur(), {}, None, "0" * 64)
    assert (stored.seal, "tensors" in to_dict(stored)) == ("4056355aceb3b1c0", False)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("method", "sigma"), 0.9, "were changed"),
        (("values", "threshold"), 1.0, "were changed"),
        (("network",), "0" * 64, "were changed"),
        (("tensors",), "0" * 16, "were changed"),
        (("method", "sigma"), -1, "more than 0 is needed"),
        (("method", "name"), "blurr", "blur"),
    ],
)
def test_a_changed_record_is_refused(folder, path, value, reason):
    edit(folder, path, value)
    with pytest.raises(CheckpointError, match=reason):
        read_model(folder)


def test_a_defence_of_another_network_is_refused(folder, other_model_folder):
    description = json.loads((other_model_folder / "model.json").read_text())
    description["defence"] = json.loads((folder / "model.json").read_text())["defence"]
    (other_model_folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="was made for the network"):
        read_model(other_model_folder)


def edit(folder, path, value):
    tree = json.loads((folder / "model.json").read_text())
    inner = tree["defence"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "model.json").write_text(json.dumps(tree))

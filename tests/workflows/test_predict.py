"""Answers for image files: those of the network on the same pixels, in the order of the files; what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import robust_nas
from robust_nas.errors import CheckpointError, DataError
from robust_nas.nets import build_network, inference_state
from robust_nas.nets.model import ModelDescription, save_model
from robust_nas.spaces import MeanFieldArchitecture, MLPArchitecture

NAMES = ("cat", "dog", "owl")
SHAPE = (1, 8, 8)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)


def saved(folder, architecture, shape=SHAPE):
    mean, std = (0.4,) * shape[0], (0.2,) * shape[0]
    network = build_network(architecture, input_shape=shape, classes=len(NAMES), mean=mean, std=std, seed=1)
    description = ModelDescription(input_shape=shape, class_names=NAMES, mean=mean, std=std)
    save_model(folder, architecture, inference_state(network), description)
    return network.eval()


@pytest.fixture
def network(tmp_path):
    return saved(tmp_path / "run" / "model", MLPArchitecture(name="m", depth=1, width=8))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_it_is_the_network_s_answer_on_the_same_pixels_in_the_order_of_names(network, pictures, tmp_path):
    found = robust_nas.predict(tmp_path / "run", [pictures])
    assert [one.file for one in found] == [str(pictures / f"{number}.png") for number in range(12)]
    with torch.no_grad():
        expected = network(torch.from_numpy(PIXELS).unsqueeze(1).float() / 255).softmax(1)
    for one, shares in zip(found, expected, strict=True):
        assert one.answer == NAMES[int(shares.argmax())] == one.ranked[0][0]
        assert dict(one.ranked) == pytest.approx(dict(zip(NAMES, shares.tolist(), strict=True)), abs=1e-5)
        assert one.probability == one.ranked[0][1] == max(share for _, share in one.ranked)
    assert len({one.answer for one in found}) > 1
    (alone,) = robust_nas.predict(tmp_path / "run" / "model", [pictures / "7.png"])
    assert (alone.file, alone.answer) == found[7][:2]


def test_other_sizes_and_colours_are_taken_where_that_is_asked_for(network, tmp_path):
    colour = tmp_path / "colour.png"
    Image.new("RGB", (16, 12), (200, 10, 10)).save(colour)
    with pytest.raises(
        DataError, match=r"is 16x12 pixels \(the model takes 8x8\) and in colour .*--fit resizes"
    ):
        robust_nas.predict(tmp_path / "run", [colour])
    (found,) = robust_nas.predict(tmp_path / "run", [colour], fit=True)
    grey = np.asarray(Image.new("RGB", (1, 1), (200, 10, 10)).convert("L"))[0, 0]
    with torch.no_grad():
        expected = network(torch.full((1, *SHAPE), int(grey) / 255)).softmax(1)
    assert found.probability == pytest.approx(float(expected.max()), abs=1e-5)


def test_a_random_network_answers_by_its_own_rule_and_repeats_itself(pictures, tmp_path):
    member = MLPArchitecture(name="m", depth=1, width=8)
    saved(tmp_path / "model", MeanFieldArchitecture(name="p", member=member, samples=5))
    draws = torch.random.get_rng_state()
    first = robust_nas.predict(tmp_path / "model", [pictures])
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert robust_nas.predict(tmp_path / "model", [pictures]) == first
    assert robust_nas.predict(tmp_path / "model", [pictures], seed=1) != first


def test_what_is_no_model_or_no_image_is_named(network, pictures, tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        robust_nas.predict(pictures, [pictures])
    with pytest.raises(CheckpointError, match=r"nowhere: no model folder, .*; it does not exist"):
        robust_nas.predict(tmp_path / "nowhere", [pictures])
    (tmp_path / "run" / "model" / "evaluation").mkdir()
    (tmp_path / "run" / "model" / "evaluation" / "checkpoint.pt").touch()
    with pytest.raises(CheckpointError, match=r"no model folder, .*; did you mean .*run.model\?"):
        robust_nas.predict(tmp_path / "run" / "model" / "evaluation", [pictures])
    with pytest.raises(DataError, match=r"absent\.png: there is no such image"):
        robust_nas.predict(tmp_path / "run", [tmp_path / "absent.png"])
    with pytest.raises(DataError, match=r"notes\.txt: cannot be decoded"):
        robust_nas.predict(tmp_path / "run", [pictures / "notes.txt"])
    with pytest.raises(DataError, match="holds no image file"):
        robust_nas.predict(tmp_path / "run", [tmp_path / "run"])
    with pytest.raises(DataError, match="got none"):
        robust_nas.predict(tmp_path / "run", [])


def test_the_command(network, pictures, tmp_path, call):
    done = call("predict", tmp_path / "run", pictures / "3.png", "--top", 2, "--json")
    (found,) = json.loads(done.out)
    (expected,) = robust_nas.predict(tmp_path / "run", [pictures / "3.png"])
    assert (found["answer"], found["ranked"]) == (
        expected.answer,
        [list(each) for each in expected.ranked[:2]],
    )
    assert f"3.png  {expected.answer}  (" in call("predict", tmp_path / "run", pictures / "3.png").out
    assert call("predict", tmp_path / "run", tmp_path / "absent.png").code == 1

"""`--data`: an image folder, a dataset by name, or where the files of a model's own dataset are now."""

import json
from pathlib import Path

import pytest
import yaml
from cases import CONFIG

import robust_nas
from robust_nas.config import apply_overrides, to_yaml
from robust_nas.nets import ModelDescription, build_network, inference_state, save_model

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1,), widths=(4,))


@pytest.fixture
def model(tmp_path):
    """Return a function that writes the model folder `m` with a record of these data and this checksum."""

    def write(checksum, *overrides):
        made = {"dataset_checksum": checksum}
        numbers = {"mean": (0.0,), "std": (1.0,)}
        network = build_network(TINY, input_shape=(1, 8, 8), classes=10, seed=0, **numbers)
        description = ModelDescription(
            input_shape=(1, 8, 8), class_names=tuple("0123456789"), made_by=made, **numbers
        )
        save_model(tmp_path / "m", TINY, inference_state(network), description)
        (tmp_path / "m" / "recipe.yaml").write_text(to_yaml(apply_overrides(CONFIG, overrides)))

    return write


@pytest.mark.parametrize(
    ("folders", "own", "given", "name", "path", "said"),
    [
        ((), "cifar10", "digits", "digits", None, ""),
        ((), "cifar10", "cifar10", "cifar10", "/old", ""),
        (("digits",), "digits", "digits", "digits", None, "the dataset digits, not the folder ./digits"),
        (
            ("digits/train",),
            "digits",
            "digits",
            "image-folder",
            "digits",
            "the images in ./digits, not the dataset",
        ),
        (
            ("cifar10",),
            "digits",
            "cifar10",
            "cifar10",
            "cifar10",
            "the dataset cifar10, with its files in ./cifar10",
        ),
        (("new/train",), "image-folder", "new", "image-folder", "new", ""),
        (("new",), "cifar10", "new", "cifar10", "new", ""),
        (("new",), "digits", "new", "image-folder", "new", ""),
    ],
)
def test_which_images_are_meant(call, model, tmp_path, folders, own, given, name, path, said):
    model("", f"data.name={own}", f"data.path={'/old' if own != 'digits' else 'null'}", "data.limit=null")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    found = call("evaluate", "m", "--data", given, "--print-config")
    assert found.code == 0, found.err
    data = yaml.safe_load(found.out)["data"]
    assert (data["name"], data["path"]) == (name, str(tmp_path / path) if path else None)
    assert said in found.err if said else found.err == ""


def test_other_images_need_a_word_in_every_verb_and_leave_nothing(call, model, tmp_path):
    model("0" * 64, "data.limit=null")
    before = sorted(tmp_path.rglob("*"))
    for verb in (("evaluate", "m"), ("compress", "m"), ("export", "m", "--check")):
        found = call(*verb)
        assert (found.code, sorted(tmp_path.rglob("*"))) == (1, before), found.err
        assert "m: was trained on other images than these of digits (checksum 000000000000 then" in found.err
        assert "--other-data" in found.err
    fast = ("--suite", "quick", "--images", 4, "evaluation.findings=none")
    for meant in (("--other-data",), ("--data", "digits")):
        found = call("evaluate", "m", *fast, *meant, "--overwrite")
        assert found.code == 0, found.err
        assert "warning: the model was trained on other images than these of digits" in found.out
    (warning,) = json.loads(Path("m/evaluation/evaluation.json").read_text())["warnings"]
    assert call("export", "m", "-f", "source").code == 0
    assert warning["text"][:60] in Path("m/export/network.py").read_text()

"""The card of a model folder: metadata that hubs read, what is known of the model, and nobody's own text lost."""

import json
import shutil

import pytest
import torch
import yaml

import robust_nas
from robust_nas.files import CARD, foreign
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.nets import ModelDescription, build_network, inference_state, save_model
from robust_nas.nets.cost import measured_cost
from robust_nas.nets.model import StoredForm

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1,), widths=(4,))
MADE = {"dataset": "digits", "seed": 3, "loss": "Natural()", "epoch": 0, "validation_clean": 0.5}


def saved(folder, architecture=NETWORK, forms=(), **changes):
    description = ModelDescription(
        **{
            "input_shape": (1, 8, 8),
            "class_names": ("a", "b"),
            "mean": (0.0,),
            "std": (1.0,),
            "made_by": MADE,
            **changes,
        }
    )
    network = build_network(
        architecture,
        input_shape=(1, 8, 8),
        classes=len(description.class_names),
        mean=(0.0,),
        std=(1.0,),
        seed=0,
    )
    rebuild(network, [LayerForm(form.name, form.form, form.numbers) for form in forms])
    save_model(
        folder,
        architecture,
        inference_state(network),
        description.model_copy(update={"layers": tuple(forms)}),
    )
    return network


def front(folder):
    """Return metadata and body of a card, as hubs take them apart."""
    empty, metadata, body = (folder / CARD).read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(metadata), body


def test_it_says_what_is_known_and_is_the_same_for_the_same_model(tmp_path):
    network = saved(tmp_path / "a")
    saved(tmp_path / "b")
    metadata, body = front(tmp_path / "a")
    assert metadata["library_name"] == "robust_nas"
    assert (metadata["datasets"], metadata["license"], metadata["metrics"]) == (
        ["digits"],
        "unknown",
        ["accuracy"],
    )
    assert "model-index" not in metadata
    cost = measured_cost(network, (1, 8, 8))
    for text in (
        "# small",
        f"{cost.params:,}",
        f"{cost.macs:,}",
        "1x8x8",
        "2: a, b",
        "Natural()",
        "before any evaluation",
    ):
        assert text in body, text
    assert (tmp_path / "a" / CARD).read_bytes() == (tmp_path / "b" / CARD).read_bytes()
    assert str(tmp_path) not in body


def test_a_compressed_network_has_its_own_cost(tmp_path):
    form = StoredForm(name="stages.0.0.conv1", form="gdws", numbers=(1, 1, 1, 1))
    network = build_network(NETWORK, input_shape=(1, 8, 8), classes=2, mean=(0.0,), std=(1.0,), seed=0)
    name = next(
        name
        for name, each in network.named_modules()
        if isinstance(each, torch.nn.Conv2d) and each.in_channels > 1
    )
    form = form.model_copy(update={"name": name})
    changed = saved(tmp_path, forms=(form,))
    cost = measured_cost(changed, (1, 8, 8))
    _, body = front(tmp_path)
    assert f"{cost.macs:,}" in body
    assert f"{cost.params:,}" in body
    assert cost != measured_cost(network, (1, 8, 8))
    assert "1 gdws" in body


def test_names_are_no_markup(tmp_path):
    saved(
        tmp_path,
        class_names=("<b>x</b>", "a|b"),
        made_by={"dataset": "my set", "recipe": "[a](http://x)", "seed": 1},
    )
    metadata, body = front(tmp_path)
    assert "datasets" not in metadata  # a hub takes no such name
    assert "<b>" not in body
    assert r"a\|b" in body
    assert "[a](http" not in body


def test_a_readme_of_somebody_else_stays_and_ours_is_no_foreign_file(tmp_path):
    saved(tmp_path / "a")
    assert list(foreign(tmp_path / "a")) == []
    own = "# My notes\n"
    (tmp_path / "a" / CARD).write_text(own)
    saved(tmp_path / "a")
    assert (tmp_path / "a" / CARD).read_text() == own
    assert [path.name for path in foreign(tmp_path / "a")] == [CARD]
    (tmp_path / "a" / CARD).unlink()  # as in an older folder
    assert robust_nas.load_model(tmp_path / "a")(torch.rand(1, 1, 8, 8)).shape == (1, 2)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    from cases import config

    root = tmp_path_factory.mktemp("hub")
    recipe = config("evaluation.suite=null", "evaluation.attacks=[{attack: {name: fgsm}, images: 20}]")
    folder = robust_nas.train(
        recipe, robust_nas.MLPArchitecture(name="mlp", depth=1, width=8), root / "model"
    )
    return folder, robust_nas.run_evaluation(recipe, folder)


def test_the_folder_for_a_hub_has_the_verdict_and_is_read_again(evaluated, call, tmp_path):
    folder, tree = evaluated
    done = call("export", folder, "--format", "hub", "--check", "--images", "20", "--out", tmp_path, "-q")
    assert done.code == 0, done.err
    hub = tmp_path / "hub"
    assert {path.name for path in hub.iterdir()} == {
        *("architecture.yaml", "model.json", "model.safetensors", "config.json", CARD)
    }
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(robust_nas.load_model(hub)(x), robust_nas.load_model(folder)(x))
    metadata, body = front(hub)
    (found,) = metadata["model-index"]
    clean, robust = found["results"][0]["metrics"]
    assert (clean["value"], robust["value"]) == (tree["clean"]["accuracy"], tree["robust"]["accuracy"])
    assert robust["name"] == "robust accuracy (linf, eps 0.1)"
    assert tree["verdict"]["status"] in body
    config = json.loads((hub / "config.json").read_text())
    assert config["library_name"] == "robust_nas"
    assert config["verdict"]["robust"] == tree["robust"]["accuracy"]
    first = (hub / CARD).read_bytes()
    again = call("export", folder, "--format", "hub", "--out", tmp_path, "-q")
    assert "hub/config.json: exists already; replace it with --overwrite" in again.err
    assert call("export", folder, "--format", "hub", "--out", tmp_path, "-q", "--overwrite").code == 0
    assert (hub / CARD).read_bytes() == first
    assert (folder / CARD).read_bytes() == first  # the evaluation wrote it again


def test_an_evaluation_leaves_a_readme_of_somebody_else(evaluated, tmp_path):
    from cases import config

    folder = tmp_path / "model"
    shutil.copytree(evaluated[0], folder)
    (folder / CARD).write_text("# Mine\n")
    recipe = config("evaluation.suite=null", "evaluation.attacks=[{attack: {name: noise}, images: 8}]")
    robust_nas.run_evaluation(recipe, folder)
    assert (folder / CARD).read_text() == "# Mine\n"

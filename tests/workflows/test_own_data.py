"""Training and search on images that Python hands over: as on the same stored ones, and known by their checksum."""

import json

import pytest
import yaml
from cases import config
from torch.utils.data import DataLoader, TensorDataset

import robust_nas
from robust_nas.data import DataOptions, load_dataset
from robust_nas.errors import ConfigError, DataError, RunExistsError
from robust_nas.workflows.config import model_config
from robust_nas.workflows.context import load_context
from robust_nas.workflows.own_data import with_own_data

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)
RECIPE = config(
    "training.epochs=2",
    "training.schedule={name: piecewise, milestones: [3]}",
    "data.limit=120",
    "search.epochs=1",
    "search.stage1_epochs=1",
)


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataOptions())


@pytest.fixture(scope="module")
def loader(digits):
    return DataLoader(TensorDataset(digits.train.float(), digits.train.labels), batch_size=100, shuffle=True)


@pytest.fixture(scope="module")
def trained(loader, tmp_path_factory):
    return robust_nas.train(RECIPE, NETWORK, tmp_path_factory.mktemp("own") / "model", data=loader)


def test_a_model_of_a_loader_is_that_of_the_stored_images(trained, tmp_path):
    stored = robust_nas.train(RECIPE, NETWORK, tmp_path / "stored")
    assert (trained / "model.safetensors").read_bytes() == (stored / "model.safetensors").read_bytes()
    data = yaml.safe_load((trained / "config.yaml").read_text())["data"]
    checksum = json.loads((trained / "environment.json").read_text())["dataset_checksum"]
    assert (data["name"], data["path"], data["options"]) == ("in-memory", None, {"checksum": checksum})
    assert robust_nas.list_runs(trained)[0].data == "in-memory"


def test_it_is_continued_with_the_same_images_alone(trained, loader, digits):
    before = (trained / "model.safetensors").read_bytes()
    robust_nas.train(RECIPE, NETWORK, trained, data=loader, mode="resume")
    other = (digits.train.pixels.flip(3), digits.train.labels)
    with pytest.raises(DataError, match="was started on other images of in-memory"):
        robust_nas.train(RECIPE, NETWORK, trained, data=other, mode="resume")
    with pytest.raises((DataError, RunExistsError)):  # those that the config names
        robust_nas.train(RECIPE, NETWORK, trained, mode="resume")
    more = RECIPE.with_("training.epochs=4")
    stored = robust_nas.load_config(str(trained))
    assert robust_nas.train(stored, NETWORK, trained, mode="resume") == trained  # it is finished
    with pytest.raises(ConfigError, match="got 'in-memory'"):
        robust_nas.train(stored.with_("training.epochs=4"), NETWORK, trained, mode="resume")
    assert (trained / "model.safetensors").read_bytes() == before
    assert robust_nas.train(more, NETWORK, trained, data=loader, mode="resume") == trained


def test_its_model_is_evaluated_on_stored_images_that_are_named(trained):
    assert model_config(trained, ["data.name=digits"]).data.options == {}
    assert model_config(trained).data.options != {}


def test_nothing_is_left_of_what_is_refused(tmp_path, digits):
    images = (digits.train.float() * 2, digits.train.labels)
    with pytest.raises(DataError, match="1 is needed"):
        robust_nas.train(RECIPE, NETWORK, tmp_path / "a", data=images)
    with pytest.raises(ConfigError, match="test: was given without data"):
        robust_nas.train(RECIPE, NETWORK, tmp_path / "a", test=digits.test)
    with pytest.raises(ConfigError, match="in-memory: has no test images to evaluate on"):
        robust_nas.run_search(
            RECIPE.with_("search.controls=1"),
            tmp_path / "a",
            data=(digits.train.pixels, digits.train.labels),
        )
    assert not (tmp_path / "a").exists()


def test_a_search_sees_the_images_of_python(tmp_path, digits):
    few = RECIPE.with_("data.limit=60")
    found = robust_nas.run_search(few, tmp_path / "own", data=(digits.train.pixels, digits.train.labels))
    assert yaml.safe_load((found.folder / "config.yaml").read_text())["data"]["name"] == "in-memory"
    assert found.record["images"] == 48  # of 60 by data.limit, without the validation images


def test_another_seed_thins_the_same_images_in_its_own_way(digits):
    changed, context = with_own_data(RECIPE, None, digits, None)
    stored = load_context(RECIPE.with_("seed=7"))
    assert changed.data.limit == 120
    assert context.of_seed(7).images.pixels.equal(stored.images.pixels)
    assert not context.images.pixels.equal(stored.images.pixels)


def test_a_trained_model_is_evaluated_on_images_of_python(trained, digits):
    model = robust_nas.load_model(trained)
    some = (digits.test.pixels[:20], digits.test.labels[:20])
    found = robust_nas.evaluate(model, some, robust_nas.ThreatModel(eps=0.1), "quick", findings="none")
    assert found.clean.images == 20

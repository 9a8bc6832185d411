"""A dataset of the user's own: by file in a config, and by an entry point; it is loaded, and trained on."""

import pytest
from cases import CONFIG
from extending import example
from plugins import install

import robust_nas
from robust_nas.config import apply_overrides, check, to_dict
from robust_nas.data import DATASETS, DataOptions, load_dataset
from robust_nas.errors import CodeRefusedError, ConfigError, DataError
from robust_nas.nets import read_model
from robust_nas.spaces import load_architecture
from robust_nas.user_code import own_config
from robust_nas.workflows.config import RunConfig

READER = example("stripes.py") + "\n\ndef not_a_reader():\n    pass\n"


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "stripes.py").write_text(READER)
    return tmp_path / "stripes.py"


def options(folder, **values):
    with own_config(folder):
        return check(DataOptions, values, "data.yaml")


def test_a_reader_by_file_is_loaded_with_its_options(reader):
    found = options(reader.parent, name="stripes.py:Stripes", options={"side": 6}, limit=60)
    assert found.name == f"{reader}:Stripes"
    dataset = load_dataset(found)
    assert (dataset.name, dataset.shape, dataset.class_names) == ("Stripes", (1, 6, 6), ("plain", "stripes"))
    assert (len(dataset.train), len(dataset.test)) == (60, 40)
    assert check(DataOptions, to_dict(found), "again") == found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "stripes.py:Stripes", "options": {"side": 0}}, r"options\.side: got 0"),
        (
            {"name": "stripes.py:Stripes", "options": {"sides": 4}},
            "options.sides: unknown key .*did you mean 'side'",
        ),
        ({"name": "stripes.py:Stripes", "path": "here"}, "; Stripes takes no path"),
        ({"name": "stripes.py:not_a_reader"}, r"a subclass of .*DatasetReader is needed"),
        ({"name": "digit"}, "got name 'digit'; allowed: digits, fashion-mnist"),
        ({"name": "digits", "options": {"side": 4}}, r"options\.side: unknown key"),
        (
            {"name": "digits", "options": {"name": "digits"}},
            "options: the key 'name' is not one of the reader's options; the dataset is named by data.name",
        ),
    ],
)
def test_mistakes_are_placed(reader, values, message):
    with pytest.raises(ConfigError, match=message):
        options(reader.parent, **values).location()


def test_a_reader_runs_only_where_its_user_named_it(reader):
    with pytest.raises(CodeRefusedError, match="--allow-code"):
        check(DataOptions, {"name": f"{reader}:Stripes"}, "a stranger's config")


def test_a_reader_by_entry_point_is_known_by_its_name(reader, monkeypatch):
    install(monkeypatch, reader.parent, DATASETS, "striped", "stripes:Stripes")
    assert DATASETS.names()[-1] == "striped"
    dataset = load_dataset(DataOptions(name="striped"))
    assert dataset.name == "striped"
    assert dataset.shape == (1, 8, 8)


def test_a_network_trains_on_it(reader, tmp_path):
    tree = apply_overrides(CONFIG, ["training.batch_size=30"])
    tree["data"] = {"name": "stripes.py:Stripes", "normalise": "dataset", "options": {"side": 8}}
    with own_config(reader.parent):
        config = check(RunConfig, tree, "stripes.yaml")
    folder = robust_nas.train(config, load_architecture("arnas").resized(3, 2), tmp_path / "model")
    model = read_model(folder).description
    assert model.class_names == ("plain", "stripes")
    assert model.made_by["dataset"] == "Stripes"


ARRAYS = """
import torch
from robust_nas.data import DatasetReader, Images, Parts

class Arrays(DatasetReader):
    takes_path = False
    names: tuple[str, ...] = ("a", "b")

    def read(self, path):
        x = torch.arange(12 * 4 * 5 * 3).to(torch.uint8).view(12, 4, 5, 3).permute(0, 3, 1, 2)
        y = torch.arange(12) // 2 % 2
        return Parts(Images(x[::2], y[::2]), Images(x[1::2], y[1::2]), self.names)
"""


def test_images_of_a_reader_that_permutes_and_steps_are_read_as_they_are(tmp_path):
    (tmp_path / "arrays.py").write_text(ARRAYS)
    dataset = load_dataset(options(tmp_path, name="arrays.py:Arrays"))
    assert (dataset.shape, dataset.train.labels.tolist()) == ((3, 4, 5), [0, 1, 0, 1, 0, 1])
    assert dataset.train.pixels[1, :, 0, 0].tolist() == [120, 121, 122]  # the channels of its first pixel
    with pytest.raises(DataError, match="class name 'a' is given twice"):
        load_dataset(options(tmp_path, name="arrays.py:Arrays", options={"names": ["a", "a"]}))

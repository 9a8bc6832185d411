"""The contract that every reader of `DATASETS` keeps."""

import subprocess
import sys

import pytest
from dataset_files import WRITE

from robust_nas.config import check
from robust_nas.data import DATASETS, DataOptions, load_dataset
from robust_nas.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::robust_nas.errors.DataWarning")  # of cifar10's black images
every_reader = pytest.mark.parametrize("name", WRITE)


def test_every_reader_of_the_registry_is_in_the_suite():
    """One whose images are not stored cannot be read from a file: `test_in_memory.py` has its contract."""
    assert set(WRITE) == {name for name in DATASETS.built_in if DATASETS.get(name).stored}


@every_reader
def test_its_name_is_the_one_in_configs(name):
    assert DATASETS.make(name).name == name
    assert check(DataOptions, {"name": name}, "test").name == name
    assert DATASETS.get(name).__doc__


@every_reader
def test_images_labels_and_names_fit_and_are_the_same_every_time(name, tmp_path):
    path = WRITE[name](tmp_path)
    options = DataOptions(name=name, path=path and str(path))
    dataset, again = load_dataset(options), load_dataset(options)
    assert dataset.name == name
    assert dataset.checksum == again.checksum
    assert len(set(dataset.class_names)) == dataset.classes >= 2
    for images in (dataset.train, dataset.test):
        assert images.pixels.shape[1:] == dataset.shape
        assert images.pixels.is_contiguous()
        assert images.pixels.device.type == "cpu"


SPLIT_BY = {
    "digits": "robust_nas",
    "fashion-mnist": "publishers",
    "cifar10": "publishers",
    "image-folder": "user",
    "npz": "user",
}


@every_reader
def test_its_dataset_says_whose_split_it_is(name, tmp_path):
    path = WRITE[name](tmp_path)
    options = DataOptions(name=name, path=path and str(path))
    assert DATASETS.get(name).split_by == load_dataset(options).split_by == SPLIT_BY[name]
    limited = load_dataset(options.model_copy(update={"limit": load_dataset(options).classes}))
    assert limited.split_by == SPLIT_BY[name]


@every_reader
def test_a_path_that_leads_nowhere_or_is_not_taken_is_named(name, tmp_path):
    reader = DATASETS.make(name)
    assert reader.where
    wrong = str(tmp_path / "nowhere")
    with pytest.raises(DataError if reader.takes_path else ConfigError) as raised:
        reader.location(wrong)
    assert wrong in str(raised.value)
    assert reader.where in str(raised.value)


@every_reader
def test_without_a_path_the_usual_place_is_taken_or_a_path_is_asked_for(name):
    reader = DATASETS.make(name)
    if reader.takes_path and reader.default_path is None:
        with pytest.raises(ConfigError, match=r"data.path: got None; .* needs .*; "):
            reader.location(None)
    elif reader.default_path is None or reader.default_path.exists():
        assert reader.location(None) == reader.default_path


def test_no_reader_needs_torch_to_be_checked():
    code = (
        "import sys\n"
        "from robust_nas.data import DATASETS, DataOptions\n"
        "for name in DATASETS.built_in:\n"
        "    DataOptions(name=name)\n"
        "    try: DATASETS.make(name).location('/nowhere')\n"
        "    except Exception as error: assert 'data.path' in str(error) or 'no such' in str(error)\n"
        "assert not {'torch', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

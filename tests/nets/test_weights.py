"""Files of weights that are not what a module needs: what is said, and that the command in it makes them so."""

import pickle
import shlex

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.nets.user_module import load_module
from robust_nas.nets.weights import load_tensors
from robust_nas.workflows.config import model_config

STATE = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()


def run_command_in(error):
    program, flag, code = shlex.split(str(error.value).partition(": python ")[2].join(["python ", ""]))
    assert (program, flag) == ("python", "-c")
    exec(code, {})  # noqa: S102 - the command of our own message


@pytest.mark.parametrize("name", ["net.pth", "a net's.ckpt", "net.safetensors"])
@pytest.mark.parametrize("around", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_torch_save_is_refused_with_the_command_that_converts_it(tmp_path, name, around, legacy):
    path = tmp_path / name
    torch.save(around(STATE), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="a safetensors file is needed") as error:
        load_tensors(path, STATE)
    run_command_in(error)
    found = load_tensors(tmp_path / f"{path.stem}-converted.safetensors", STATE)
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_pickle_is_refused_and_its_code_never_runs(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"state_dict": Harmful()}))
    with pytest.raises(CheckpointError, match="but a pickle") as error:
        load_tensors(path, STATE)
    with pytest.raises(Exception):  # noqa: B017, PT011 - torch's own refusal
        run_command_in(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("prefix", "by"),
    [
        ("module.", ", as torch.nn.DataParallel writes them"),
        ("_orig_mod.", ", as torch.compile writes them"),
        ("module._orig_mod.", ", as torch.nn.DataParallel writes them"),
        ("model.", ", as a class around the network writes them"),
        ("backbone.net.", ""),
    ],
)
@pytest.mark.parametrize("whose", ["the file", "the module"])
def test_a_prefix_of_all_names_gets_a_hint_and_the_command_that_renames_them(tmp_path, prefix, by, whose):
    path = tmp_path / "net.safetensors"
    wrapped = {prefix + key: value for key, value in STATE.items()}
    file, wanted = (wrapped, STATE) if whose == "the file" else (STATE, wrapped)
    save_file(file, path)
    with pytest.raises(CheckpointError) as error:
        load_tensors(path, wanted)
    assert f"All names of {whose} begin with {prefix!r}{by}. Rename them: " in str(error.value)
    run_command_in(error)
    assert load_file(tmp_path / "net-converted.safetensors").keys() == wanted.keys()


def test_other_names_get_no_hint(tmp_path):
    save_file(
        {f"module.{key}": value for key, value in list(STATE.items())[1:]}, tmp_path / "net.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"0\.weight is missing") as error:
        load_tensors(tmp_path / "net.safetensors", STATE)
    assert "begin with" not in str(error.value)


def test_it_is_said_where_weights_are_given(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(2, 3)\n")
    torch.save({}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="a safetensors file is needed"):
        load_module(f"{tmp_path / 'net.py'}:build", tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=r"net\.pth: is a file; a model folder is needed.*--weights"):
        model_config(tmp_path / "net.pth")

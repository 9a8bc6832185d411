"""The models that attacks are transferred from: a wrong one is refused first, and another one is noticed."""

import shutil

import pytest
from cases import config

import robust_nas
from robust_nas.config import read_yaml
from robust_nas.errors import AttackError, CheckpointError, RunExistsError
from robust_nas.nets.model import ModelDescription, inference_state, read_model, save_model
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import model_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
GDWS = ["compression.gdws.budgets=[0.9]", "compression.gdws.alpha.images=20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model, a surrogate and another surrogate, in one folder."""
    folder = tmp_path_factory.mktemp("trained")
    for seed, name in enumerate(("model", "surrogate", "other")):
        robust_nas.train(config(f"seed={seed}", "evaluation.images=20"), TINY, folder / name)
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    return shutil.copytree(trained, tmp_path / "place")


def naming(place):
    return f"evaluation.surrogates=[{place / 'surrogate'}]"


def listed(place):
    return f"evaluation.attacks=[{{attack: {{name: transfer, surrogates: [{place / 'surrogate'}]}}}}]"


def swap(place):
    """Put the weights of the other surrogate, and the mean that they were trained with, into the first one's folder."""
    for name in ("model.safetensors", "model.json"):
        shutil.copy(place / "other" / name, place / "surrogate")


@pytest.mark.parametrize("how", [naming, listed])
def test_an_evaluation_by_another_surrogate_of_the_same_path_is_another_evaluation(place, how):
    chosen = model_config(place / "model", [how(place)])
    robust_nas.run_evaluation(chosen, place / "model")
    record = read_yaml(place / "model" / "evaluation" / "config.yaml")
    assert record["surrogate_digests"] == [read_model(place / "surrogate").digest]
    robust_nas.run_evaluation(chosen, place / "model", mode="resume")
    swap(place)
    with pytest.raises(RunExistsError, match="different: surrogate_digests"):
        robust_nas.run_evaluation(chosen, place / "model", mode="resume")


def test_without_surrogates_the_record_has_no_such_key(place):
    robust_nas.run_evaluation(model_config(place / "model"), place / "model")
    assert "surrogate_digests" not in read_yaml(place / "model" / "evaluation" / "config.yaml")


def test_a_compression_takes_no_evaluation_by_another_surrogate_for_the_original_s(place):
    robust_nas.run_evaluation(model_config(place / "model", [naming(place)]), place / "model")
    chosen = compression_config(place / "model", "gdws", [*GDWS, naming(place)])
    robust_nas.compress(chosen, place / "model", place / "same")
    assert not (place / "same" / "original").exists()
    swap(place)
    robust_nas.compress(chosen, place / "model", place / "swapped")
    assert (place / "swapped" / "original" / "evaluation.json").is_file()
    with pytest.raises(RunExistsError, match="different: surrogate_digests"):
        robust_nas.compress(chosen, place / "model", place / "same", mode="resume")


def evaluate(place, out, override):
    robust_nas.run_evaluation(model_config(place / "model", [override]), place / "model", out)


def compress(place, out, override):
    chosen = compression_config(place / "model", "gdws", [*GDWS, override])
    robust_nas.compress(chosen, place / "model", out)


def run(place, out, override):
    robust_nas.run(config(override), out)


@pytest.mark.parametrize("verb", [evaluate, compress, run])
def test_a_wrong_surrogate_leaves_no_folder(place, verb):
    with pytest.raises(CheckpointError, match="nowhere: no model folder"):
        verb(place, place / "out", f"evaluation.surrogates=[{place / 'nowhere'}]")
    network = robust_nas.build_network(TINY, input_shape=(1, 8, 8), classes=4)
    description = ModelDescription(input_shape=(1, 8, 8), class_names=tuple("0123"), mean=(0.0,), std=(1.0,))
    save_model(place / "surrogate", TINY, inference_state(network), description)
    with pytest.raises(AttackError, match="tells 4 classes; these are"):
        verb(place, place / "out", naming(place))
    assert not (place / "out").exists()

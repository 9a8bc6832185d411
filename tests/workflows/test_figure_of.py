"""Figures as matplotlib's own objects: the same as in the run folder, of everything that has a record."""

import pytest
from cases import config
from matplotlib.figure import Figure

import robust_nas
from robust_nas.errors import ArchitectureError, ConfigError, RunError, UnknownMethodError
from robust_nas.figures import plot_training
from robust_nas.figures.style import kept
from robust_nas.records import read_lines

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)
RECIPE = config(
    "training.epochs=3", "evaluation.suite=null", "evaluation.attacks=[{attack: {name: fgsm}, images: 20}]"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = robust_nas.train(RECIPE, NETWORK, tmp_path_factory.mktemp("figures") / "model")
    robust_nas.run_evaluation(RECIPE, folder)
    return folder


def test_the_figures_of_a_folder_are_drawn_without_files(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, evaluation = (robust_nas.figure(name, model) for name in ("training", "evaluation"))
    assert isinstance(training, Figure)
    assert training.axes[0].get_ylabel() == "accuracy (%)"
    with kept() as drawn:
        assert plot_training(read_lines(model / "metrics.jsonl"), tmp_path / "own") == ()
    lines = [[list(line.get_ydata()) for line in each.axes[0].lines][:3] for each in (training, *drawn)]
    assert lines[0] == lines[1]
    assert "tiny on digits, seed 5" in training.get_supxlabel()
    assert robust_nas.figure("training", model, caption="mine").get_supxlabel() == "mine"
    assert isinstance(evaluation, Figure)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_memory_is_drawn_too(model):
    network = robust_nas.load_model(model)
    images = robust_nas.load_dataset(robust_nas.DataOptions()).test.draw(20, 0)
    found = robust_nas.evaluate(network, images, robust_nas.ThreatModel(eps=0.1), "quick", findings="none")
    assert isinstance(robust_nas.figure("evaluation", found), Figure)
    assert isinstance(robust_nas.figure("cells", robust_nas.load_architecture("arnas")), Figure)
    assert isinstance(robust_nas.figure("evaluation", found.to_dict()), Figure)


def test_what_cannot_be_drawn_is_said(model, tmp_path):
    with pytest.raises(UnknownMethodError, match="trainin"):
        robust_nas.figure("trainin", model)
    with pytest.raises(ConfigError, match=r"'cells': is of a search; .* holds train"):
        robust_nas.figure("cells", model)
    with pytest.raises(
        ConfigError, match=r"'examples': there is nothing to draw \(examples.*for: evaluation"
    ):
        robust_nas.figure("examples", model)
    with pytest.raises(ConfigError, match=r"'ranking': is of a ranking, whose record is to be given"):
        robust_nas.figure("ranking", model)
    with pytest.raises(ConfigError, match="holds no run"):
        robust_nas.figure("training", tmp_path)
    with pytest.raises(ConfigError, match="got int"):
        robust_nas.figure("training", 3)
    with pytest.raises(ArchitectureError, match="no cells"):
        robust_nas.figure("cells", NETWORK)
    (tmp_path / "config.yaml").write_text("architecture: {}\ntraining: {}\n")
    with pytest.raises(RunError, match=r"result\.json: cannot be read"):
        robust_nas.figure("training", tmp_path)

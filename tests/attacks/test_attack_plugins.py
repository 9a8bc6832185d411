"""An attack of the user's own: by file and by an entry point, in a training and in an evaluation."""

import shutil

import pytest
from cases import config
from extending import example
from plugins import install

import robust_nas
from robust_nas.attacks import ATTACKS
from robust_nas.config import read_yaml
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.user_code import own_config
from robust_nas.workflows.config import model_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))


def listed(name):
    """Overrides under which a network is trained against the attack, and evaluated by it."""
    return (
        f"training.loss={{name: pgd-at, attack: {{name: '{name}', draws: 2}}}}",
        f"evaluation.attacks=[{{attack: {{name: '{name}', draws: 3}}}}]",
    )


@pytest.fixture
def corners(tmp_path):
    (tmp_path / "corners.py").write_text(example("corners.py"))
    return tmp_path / "corners.py"


@pytest.fixture(params=["file", "entry point"])
def plugin(request, corners, monkeypatch):
    """The name by which a config calls the attack."""
    if request.param == "file":
        return "corners.py:Corners"
    install(monkeypatch, corners.parent, ATTACKS, "corners", "corners:Corners")
    return "corners"


def test_it_trains_evaluates_and_is_written_down(plugin, corners, tmp_path):
    with own_config(tmp_path):
        values = config(*listed(plugin))
    folder = robust_nas.train(values, TINY, tmp_path / "model")
    tree = robust_nas.run_evaluation(values, folder)
    (row,) = tree["attacks"]
    assert row["label"] == plugin.rpartition(":")[2]
    assert row["parameters"]["draws"] == 3
    assert row["backwards"] == 0
    assert tree["robust"]["accuracy"] <= tree["clean"]["accuracy"]
    name = f"{corners}:Corners" if plugin.endswith("Corners") else plugin
    assert read_yaml(folder / "config.yaml")["training"]["loss"]["attack"]["name"] == name


def test_its_options_are_checked_and_it_fits_where_it_says(corners):
    with own_config(corners.parent):
        with pytest.raises(ConfigError, match=r"attack\.draw: unknown key 'draw'; did you mean 'draws'"):
            config("training.loss={name: pgd-at, attack: {name: 'corners.py:Corners', draw: 2}}")
        with pytest.raises(ConfigError, match="gradient"):
            config("training.validation_attack={name: 'corners.py:Corners'}")


def test_a_folder_that_names_it_is_refused_until_its_reader_allows_the_file(corners, tmp_path, call):
    with own_config(tmp_path):
        values = config(*listed("corners.py:Corners"))
    folder = robust_nas.train(values, TINY, tmp_path / "model")
    sent = tmp_path / "sent"
    shutil.copytree(folder, sent)
    text = (sent / "recipe.yaml").read_text()
    (sent / "recipe.yaml").write_text(text.replace(str(corners), "/home/somebody/corners.py"))
    (sent / "corners.py").write_text("raise SystemExit('a file inside the folder has run')")
    with pytest.raises(CodeRefusedError, match=r"--allow-code corners\.py"):
        model_config(sent)
    refused = call("evaluate", str(sent))
    assert refused.code == 2
    assert "--allow-code corners.py" in refused.err
    assert not (sent / "evaluation").exists()
    allowed = call("evaluate", str(sent), "--allow-code", str(corners), "--quiet")
    assert allowed.code == 0, allowed.err
    assert (sent / "evaluation" / "evaluation.json").is_file()

"""Code that a config names, through the calls that come after the config was checked; and code that others name."""

import re
from pathlib import Path

import forks
import pytest
import yaml
from cases import CONFIG
from extending import example

import robust_nas
from robust_nas.cli import main
from robust_nas.config import apply_overrides, read_yaml
from robust_nas.errors import CodeRefusedError, ConfigError, RunExistsError
from robust_nas.studies.config import PRESETS
from robust_nas.user_code import resolve
from robust_nas.workflows.config import EvaluationConfig, load_config, trusting


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a config next to files of code, and returns its path; the current folder is another."""
    (tmp_path / "own").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(*overrides, name="own.yaml", **files):
        for stem, text in files.items():
            (tmp_path / "own" / f"{stem}.py").write_text(text)
        path = tmp_path / "own" / name
        path.write_text(yaml.safe_dump(apply_overrides(CONFIG, overrides)))
        return path

    return write


def test_an_operation_by_a_relative_path_is_searched(written, tmp_path):
    path = written("space.changes.operations=[skip_connect, gated.py:Gated]", gated=example("gated.py"))
    out = tmp_path / "found"
    found = robust_nas.run_search(load_config(path), out)
    assert load_config(path).space.load().operations == ("skip_connect", f"{path.parent}/gated.py:Gated")
    again = robust_nas.run_search(load_config(path), out, mode="resume")
    assert again.architecture == found.architecture


def test_a_suite_that_names_code_is_read_with_the_config_alone(written, tmp_path, monkeypatch):
    path = written("evaluation.attacks=null", "evaluation.suite=suite.yaml", corners=example("corners.py"))
    (path.parent / "suite.yaml").write_text("attacks: [{attack: {name: 'corners.py:Corners'}}]")
    monkeypatch.chdir(path.parent)
    config = load_config(path)
    (path.parent / "suite.yaml").unlink()
    for evaluation in (config.evaluation, EvaluationConfig.of(config).evaluation):
        assert [step.attack.label for step in evaluation.steps] == ["Corners"]


def test_a_suite_that_is_not_there_is_placed(written):
    path = written("evaluation.attacks=null", "evaluation.suite=none.yaml")
    with pytest.raises(
        ConfigError, match=r"own\.yaml: evaluation: 'none\.yaml' is neither a suite nor a file"
    ):
        load_config(path)


def test_a_space_that_is_wrong_is_one_problem_of_several(written):
    path = written("space.changes.nodes=0", "training.epochs=0")
    with pytest.raises(ConfigError, match=r"(?s)space: .*nodes: got 0.*training\.epochs: got 0"):
        load_config(path)


def test_an_architecture_from_elsewhere_is_refused_although_a_study_of_one_s_own_names_it(
    written, tmp_path, capsys
):
    received = tmp_path / "elsewhere" / "received"
    received.mkdir()
    (received / "evil.py").write_text("print('has run')")
    tree = {"type": "mlp", "name": "m", "depth": 1, "width": 8, "activation": "received/evil.py:Swish"}
    (received / "architecture.yaml").write_text(yaml.safe_dump(tree))
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**read_yaml(PRESETS / "zhu-mlp-init.yaml"), "base": "received"}))
    with pytest.raises(CodeRefusedError, match=r"--allow-code evil\.py"):
        robust_nas.load_study(study, size="ci")
    assert capsys.readouterr().out == ""


def test_the_recipe_of_a_run_folder_is_refused_until_its_file_is_allowed(written):
    loss = "training.loss={name: own.py:Mixup}"
    path = written(loss, own=example("mixup.py"))
    (path.parent / "environment.json").touch()
    with pytest.raises(CodeRefusedError, match=r"--allow-code own\.py"):
        load_config(path)
    with robust_nas.allow_code([path.parent / "own.py"]):
        assert load_config(path).training.loss.label == "Mixup"


@pytest.mark.parametrize(
    "override", ['evaluation.checks=["my own.py:Check"]', "evaluation.checks=[{name: 'my own.py:Check'}]"]
)
def test_an_override_names_its_file_as_yaml_does(tmp_path, override, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my own.py").write_text("Check = 4\n")
    with trusting([override]):
        assert resolve("my own.py:Check")[1] == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "    def __call__(self, *_):\n        raise KeyError('boom')\n",
            r"/own/boom\.py:5: KeyError: 'boom'",
        ),
        ("    pass\n", "Boom has no algorithm"),
    ],
)
def test_an_exception_of_one_s_own_code_is_reported_by_its_line_and_leaves_no_folder(
    written, body, message, monkeypatch, capsys
):
    text = "from robust_nas.training import Loss\n\nclass Boom(Loss):\n" + body
    path = written("training.loss={name: boom.py:Boom}", "network={cells: 4, channels: 2}", boom=text)
    network = path.with_name("network.yaml")
    network.write_text("{type: mlp, name: m, depth: 1, width: 4}")
    monkeypatch.setattr("sys.argv", ["robust-nas", "train", str(path), "-a", str(network), "-o", "out", "-q"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert re.search(message, capsys.readouterr().err)
    assert not Path("out").exists()


class StoppedError(Exception):
    pass


def stop(job, done, total, note=""):
    if done == 2:
        raise StoppedError


def test_a_training_whose_code_was_changed_is_not_continued(written, tmp_path):
    small = ("training.loss={name: mixup.py:Mixup, share: 0.2}", "training.epochs=2", "checkpoint_seconds=0")
    path = written(*small, mixup=example("mixup.py"))
    file, out = path.parent / "mixup.py", tmp_path / "model"
    architecture = robust_nas.load_architecture("wrn-10-1")
    with pytest.raises(StoppedError):
        robust_nas.train(load_config(path), architecture, out, progress=stop)

    def again():  # in a process that has not yet read the file
        log = tmp_path / "log.txt"
        forks.run(log, continue_training, path, out)
        return log.read_text()

    text = file.read_text()
    file.write_text(text.replace("(1 - self.share) * mixed[0]", "mixed[0]"))
    assert again().strip() == (
        f"{out}: was started with another version of {file}; put the file back, start again with --overwrite, "
        "or choose another folder with --out"
    )
    file.write_text(text)
    assert again().strip() == "done"
    result = (out / "result.json").read_bytes()
    file.write_text(text.replace("(1 - self.share) * mixed[0]", "mixed[0]"))
    assert again().strip() == "done"  # finished
    assert (out / "result.json").read_bytes() == result


def continue_training(path, out):
    try:
        robust_nas.train(load_config(path), robust_nas.load_architecture("wrn-10-1"), out, mode="resume")
        print("done", flush=True)
    except RunExistsError as error:
        print(error, flush=True)

"""A config means the same suite, surrogates, space and images wherever it is read: its paths are absolute."""

from pathlib import Path

import pytest
import yaml
from cases import CONFIG

from robust_nas.config import to_yaml, to_yaml_dict
from robust_nas.evaluation import EvaluationOptions
from robust_nas.spaces.files import folder
from robust_nas.studies.config import StudyConfig, load_study
from robust_nas.workflows.config import load_config, model_config

WEAK, STRONG = "attacks: [{attack: {name: fgsm}}]\n", "attacks: [{attack: {name: pgd}}]\n"
TRANSFER = "attacks: [{attack: {name: transfer, surrogates: [m]}}, {attack: {name: fgsm}}]\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a current folder, and next to it a folder with a config; both have a suite and a model of one name."""
    for name, suite in (("here", STRONG), ("configs", WEAK)):
        (tmp_path / name / "m").mkdir(parents=True)
        (tmp_path / name / "own.yaml").write_text(suite)
        (tmp_path / name / "space.yaml").write_text((folder() / "dsara.yaml").read_text())
    monkeypatch.setenv("SETS", str(tmp_path / "configs"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def write(path: Path, **evaluation: object) -> Path:
    tree = {**CONFIG, "evaluation": {"threat_model": {"eps": 0.1}, **evaluation}}
    path.write_text(yaml.safe_dump({**tree, "space": {"name": "space.yaml"}}))
    return path


def attacks(config) -> list[str]:
    return [step.attack.name for step in config.evaluation.steps]


@pytest.mark.parametrize("of", ["here", "configs"])
def test_every_path_of_a_resolved_config_is_absolute(here, of):
    found = load_config(write(here.parent / of / "mine.yaml", suite="own.yaml", surrogates=["m", "$SETS/m"]))
    place = here.parent / of
    assert found.space.name == str(place / "space.yaml")
    assert found.evaluation.suite == str(place / "own.yaml")
    assert found.evaluation.surrogates == (str(place / "m"), str(here.parent / "configs/m"))
    assert attacks(found) == ["pgd" if of == "here" else "fgsm"]


def test_a_path_of_the_command_line_is_seen_from_the_current_folder(here):
    config = write(here.parent / "configs/mine.yaml", suite="own.yaml")
    given = ["evaluation.suite=own.yaml", "evaluation.surrogates=[m]", "space.name=space.yaml"]
    found = load_config(config, given)
    assert (found.evaluation.suite, found.space.name) == (str(here / "own.yaml"), str(here / "space.yaml"))
    assert found.evaluation.surrogates == (str(here / "m"),)
    assert attacks(found) == ["pgd"]


@pytest.mark.parametrize("path", ["$SETS/x", "${SETS}/x", "~user-who-is-not-there"])
def test_variables_and_a_tilde_in_the_place_of_the_images(here, path):
    (here / "~user-who-is-not-there").mkdir()
    found = load_config("quickstart", ["data.name=image-folder", f"data.path={path}"]).data.path
    expected = here / path if path.startswith("~") else here.parent / "configs/x"
    assert found == str(expected)


def test_a_model_keeps_its_suite_wherever_it_is_evaluated(here, monkeypatch):
    trained = load_config(write(here / "mine.yaml", suite="own.yaml"))
    (here.parent / "model").mkdir()
    (here.parent / "model/recipe.yaml").write_text(to_yaml(trained))
    monkeypatch.chdir(here.parent / "configs")  # with another suite of the same name
    assert attacks(model_config(here.parent / "model")) == ["pgd"]


def test_a_path_in_a_suite_is_seen_from_the_suite(here):
    (here.parent / "configs/own.yaml").write_text(TRANSFER)
    options = EvaluationOptions(threat_model={"eps": 0.1}, suite="../configs/own.yaml")
    assert options.steps[0].attack.surrogates == (str(here.parent / "configs/m"),)


def test_names_stay_names(here):
    (here / "quick").write_text(STRONG)
    (here / "dsara").write_text("")
    found = load_config("quickstart", ["evaluation.suite=quick", "space.name=dsara"])
    assert (found.evaluation.suite, found.space.name) == ("quick", "dsara")


def test_the_architectures_of_a_study_are_those_next_to_it_when_it_was_read(here, monkeypatch):
    for name, width in (("here", 8), ("configs", 4)):
        architecture = {"type": "residual", "name": name, "stem": 4, "depths": [1], "widths": [width]}
        (here.parent / name / "net.yaml").write_text(yaml.safe_dump(architecture))
    tree = {key: CONFIG[key] for key in ("name", "data", "training")}
    tree |= {"evaluation": {"threat_model": {"eps": 0.1}, "suite": "quick"}, "base": "net.yaml"}
    tree |= {"space": [{"name": "list", "architectures": ["net.yaml", "../here/net.yaml", "wrn-10-1"]}]}
    (here.parent / "configs/study.yaml").write_text(yaml.safe_dump(tree))
    study = load_study(here.parent / "configs/study.yaml")
    (here.parent / "configs/net.yaml").unlink()

    def widths(study):
        found = study.space[0].configurations(study.base, (1, 8, 8), 10)
        return [configuration.architecture.widths[0] for configuration in found]

    assert widths(study) == [4, 8, 16]
    assert widths(StudyConfig.model_validate(to_yaml_dict(study))) == [4, 8, 16]

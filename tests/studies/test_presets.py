"""The shipped studies: every size resolves, plans, keeps its budgets, and can answer the rules it declares."""

from pathlib import Path

import pytest
import torch
from small_study import small_study

from robust_nas.config import check, read_yaml, to_yaml
from robust_nas.data import Images
from robust_nas.data.dataset import Dataset
from robust_nas.errors import ConfigError, StudyError
from robust_nas.studies.config import StudyConfig, load_study, preset_names
from robust_nas.studies.run.plan import plan_on
from robust_nas.workflows.context import JobContext

SHAPES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
SIZES = ("ci", "small", "full")


def context(config: StudyConfig) -> JobContext:
    """Noise in the shape of a dataset."""
    pixels = torch.zeros((400, *SHAPES[config.data.name]), dtype=torch.uint8)
    images = Images(pixels, torch.arange(400) % 10)
    dataset = Dataset(config.data.name, images, images, tuple("0123456789"), "checksum")
    return JobContext(config, dataset, torch.device("cpu"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_plans_at_every_size(name: str, size: str) -> None:
    config = load_study(name, size=size)
    assert (config.size, config.name) == (size, f"{name}-{size}")
    assert check(StudyConfig, read_yaml_text(to_yaml(config)), "again") == config
    plan = plan_on(config, context(config))  # the rules are rehearsed
    assert len(plan.points) >= 3
    assert plan.reference.architecture == config.base
    assert len(plan.trials) == len(plan.points) * len(config.seeds) >= 9
    if name == "robustscaling-rd":
        ratios = [point.macs / plan.points[1].macs for point in plan.points if point is not plan.reference]
        assert max(ratios) / min(ratios) < 1.25
    if name == "wrn-r-vs-uniform":
        assert {part for point in plan.points for part in point.arm.split("+")} == {
            "uniform.iso-params",
            "uniform.iso-macs",
            "huang.iso-params",
            "huang.iso-macs",
        }
        assert any("times its MACs" in warning for warning in plan.warnings)
    if size == "full" and name != "zhu-mlp-init":
        real = 45_000 // 400  # the guard speaks of all images
        assert plan.total_macs * real > config.guard.max_training_macs


def read_yaml_text(text: str) -> object:
    from robust_nas.config import parse_yaml

    return parse_yaml(text, "text")


def test_an_axis_of_the_recipe_may_hold_what_the_recipe_has() -> None:
    space = [{"name": "grid", "axes": {"training.weight_decay": [0, 5e-4], "width": [16, 8]}, "arm": "decay"}]
    config = small_study(space=space)
    plan = plan_on(config, context(config))
    assert [(point.name, point.factors["training.weight_decay"]) for point in plan.points] == [
        ("mlp-d1-w16", 5e-4),
        ("mlp-d1-w16+weight_decay=0", 0.0),
        ("mlp-d1-w8+weight_decay=0", 0.0),
        ("mlp-d1-w8+weight_decay=0.0005", 5e-4),
    ]
    assert plan.reference.arm == "decay"


def test_a_size_has_to_be_chosen_and_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"choose one with --size: ci, small, full"):
        load_study("huang-width-last")
    with pytest.raises(StudyError, match="got huge"):
        load_study("huang-width-last", size="huge")
    (tmp_path / "mine.yaml").write_text(to_yaml(load_study("huang-width-last", size="ci")))
    assert load_study(tmp_path / "mine.yaml") == load_study("huang-width-last", size="ci")
    with pytest.raises(StudyError, match="has no sizes"):
        load_study(tmp_path / "mine.yaml", size="ci")
    with pytest.raises(StudyError, match="neither a study nor a file; studies: huang-width-last"):
        load_study("huang")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=0", "seeds: got 0"),
        ("seeds=[1,1]", "named twice"),
        ("metrics.attack.eps=0.2", "metrics.attack.eps: got 0.2; the threat model has 0.1"),
        ("evaluation.deployed.abstains=true", "answer by their logits"),
        ("analysis.rules=[huang]", "analysis.rules.0"),
        ("analysis.rules=[last_stage,last_stage]", "a rule is named twice"),
        ("base=wrn-11-1", "depth 11 is not 6n \\+ 4"),
        ("space=[]", "space"),
        ("space.0.name=gird", "got name 'gird'; allowed: grid, iso, ratio, list"),
        ("inherited.search=results/x", "weights are inherited by cell networks"),
        ("gaurd.max_hours=3", "unknown key 'gaurd'; did you mean 'guard'"),
    ],
)
def test_mistakes_in_a_config_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study("huang-width-last", [override], size="ci")


def test_preset_files_say_what_they_ask_in_their_first_line() -> None:
    from robust_nas.studies.config import PRESETS

    for name in preset_names():
        assert (PRESETS / f"{name}.yaml").read_text().startswith("# ")
        assert list(read_yaml(PRESETS / f"{name}.yaml")["sizes"]) == list(SIZES)


def test_a_suite_that_is_asked_for_takes_the_place_of_the_listed_attacks():
    config = load_study("huang-width-last", ["evaluation.suite=quick"], size="ci")
    assert (config.evaluation.suite, config.evaluation.attacks) == ("quick", None)
    with pytest.raises(
        ConfigError, match=r"evaluation\.attacks=null keeps the suite, evaluation\.suite=null"
    ):
        load_study(
            "huang-width-last", ["evaluation.suite=quick", "evaluation.attacks=[{attack: fgsm}]"], size="ci"
        )

"""A design, a rule and an attack of a user's own: planned, run, judged and reported, without a line of ours."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from extending import example
from plugins import install
from small_study import TREE, HereEngine, small_study, table

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.errors import AttackError, ConfigError
from robust_nas.execution import LocalEngine
from robust_nas.run_folder import read_json
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.design import DESIGNS
from robust_nas.studies.rules import RULES
from robust_nas.user_code import own_config

SHIFT = '''
from robust_nas.attacks import BoundedAttack, Passes


class Shift(BoundedAttack):
    """Every pixel up by eps."""

    @property
    def passes(self):
        return Passes(1, 0)

    def perturb(self, model):
        return (model.images + self.eps).clamp(0, 1)
'''
PLUGIN = example("width_ladder.py") + example("widest_wins.py") + SHIFT


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)


def written(folder: Path, design: str, rule: Any, **more: Any) -> Path:
    """A study's file that names the design and the rule; `mine.py` is next to it."""
    (folder / "mine.py").write_text(PLUGIN)
    space = [{"name": design, "widths": [8, 32], "arm": "ladder"}]
    tree = {**TREE, "space": space, "analysis": {"draws": 200, "rules": ["more_params", rule]}, **more}
    path = folder / "study.yaml"
    path.write_text(to_yaml(tree))
    return path


@pytest.fixture(scope="module")
def by_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyConfig, Path]:
    """The config of a study that names `mine.py`, and the folder of its finished run."""
    folder = tmp_path_factory.mktemp("by-file")
    rule = {"name": "mine.py:WidestWins", "least": 2}
    config = robust_nas.load_study(written(folder, "mine.py:WidthLadder", rule))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)
        return config, robust_nas.run_study(config, folder / "run", engine=HereEngine())


def test_a_design_and_a_rule_by_file_go_from_the_config_to_the_report(
    by_file: tuple[StudyConfig, Path],
) -> None:
    config, folder = by_file
    plan, _ = robust_nas.plan_study(config)
    assert [point.name for point in plan.points] == ["mlp-d1-w16", "mlp-d1-w8", "mlp-d1-w32"]
    assert [point.arm for point in plan.points] == ["", "ladder", "ladder"]
    tree = read_json(folder / "analysis.json")
    assert [one["rule"] for one in tree["rules"]] == ["more_params", "WidestWins"]
    assert tree["rules"][1]["statement"] == "The widest network is more robust than the narrowest."
    again = HereEngine()
    robust_nas.run_study(config, folder, mode="resume", engine=again)
    assert again.ran == []
    assert robust_nas.report_study(folder)["rules"] == tree["rules"]


def test_a_design_and_a_rule_by_entry_point_are_planned_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ((DESIGNS, "width-ladder", "mine:WidthLadder"), (RULES, "widest-wins", "mine:WidestWins"))
    for number, (registry, name, value) in enumerate(named):
        folder = tmp_path / f"package-{number}"
        folder.mkdir()
        (folder / "mine.py").write_text(PLUGIN)
        install(monkeypatch, folder, registry, name, value)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    config = robust_nas.load_study(written(tmp_path, "width-ladder", "widest-wins", seeds=1))
    assert [rule.label for rule in config.analysis.rules] == ["more_params", "widest-wins"]
    folder = robust_nas.run_study(config, tmp_path / "run", engine=HereEngine())
    tree = read_json(folder / "analysis.json")
    assert [one["rule"] for one in tree["rules"]] == ["more_params", "widest-wins"]
    assert [one["status"] for one in tree["rules"]] == ["undecided", "undecided"]  # one seed


def test_a_strangers_study_runs_no_code_unless_it_is_allowed(by_file: tuple[StudyConfig, Path]) -> None:
    folder = by_file[1]
    code = (
        "import sys, pathlib\n"
        "from robust_nas.errors import CodeRefusedError\n"
        "from robust_nas.studies.run.runner import report_study, study_table\n"
        "folder, file = map(pathlib.Path, sys.argv[1:])\n"
        "try:\n"
        "    report_study(folder)\n"
        "except CodeRefusedError as error:\n"
        "    print('refused', 'mine.py' in str(error))\n"
        "print(len(study_table(folder, allow_code=[file]).splitlines()))\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(folder.parent / "mine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder.parent)
    assert done.stdout.split() == ["refused", "True", "7"]


def test_a_workers_process_runs_the_users_own_code(tmp_path: Path) -> None:
    metrics = {"attack": {"name": "mine.py:Shift"}, "images": 30}
    study = written(tmp_path, "mine.py:WidthLadder", "mine.py:WidestWins", seeds=1, metrics=metrics)
    config = robust_nas.load_study(study)
    folder = robust_nas.run_study(config, tmp_path / "run", engine=LocalEngine(workers=1))
    tree = read_json(folder / "analysis.json")
    assert (tree["cost"]["done"], tree["unfinished"]) == (3, [])
    assert tree["attacks"][-1] == "Shift"


def test_a_rule_whose_measure_is_not_taken_is_refused_by_the_config(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN + "\n\nclass Blind(WidestWins):\n    metrics = ('sharpness',)\n")
    tree = {**TREE, "analysis": {"rules": ["mine.py:Blind"]}}
    with (
        own_config(tmp_path),
        pytest.raises(ConfigError, match="Blind needs sharpness, which is not measured; use another rule"),
    ):
        robust_nas.config.check(StudyConfig, tree, "study")


def test_an_activation_by_file_is_planned_and_tried(tmp_path: Path) -> None:
    (tmp_path / "curved.py").write_text(example("curved.py"))
    axes = {"activation": ["relu", f"{tmp_path / 'curved.py'}:Curved"]}
    with own_config(tmp_path):
        config = small_study(space=[{"name": "grid", "axes": axes}], seeds=1)
        plan, _ = robust_nas.plan_study(config)
        engine = HereEngine()
        folder = robust_nas.run_study(config, tmp_path / "run", engine=engine)
    names = [point.name for point in plan.points]
    assert re.fullmatch(r"mlp-d1-w16 mlp-d1-w16\.Curved-h[0-9a-f]{8}", " ".join(names))
    assert [row["name"] for row in table(folder)] == names
    assert len(engine.ran) == 2


def test_an_attack_that_is_not_defined_for_the_images_is_refused_by_the_plan(tmp_path: Path) -> None:
    picky = "\n\nclass Picky(Shift):\n    @property\n    def least_classes(self):\n        return 11\n"
    (tmp_path / "mine.py").write_text(PLUGIN + picky)
    with own_config(tmp_path):
        config = small_study(metrics={"attack": {"name": "mine.py:Picky"}})
    with pytest.raises(AttackError, match="needs at least 11 classes, the model has 10"):
        robust_nas.plan_study(config)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            {"space": [{"name": "mine.py:WidestWins"}]},
            r"space\.0: design .* a subclass of .*Design is needed",
        ),
        ({"space": [{"name": "mine.py:WidthLadder"}]}, r"space\.0\.widths: missing"),
        (
            {"space": [{"name": "ladder"}]},
            r"space\.0: got name 'ladder'; allowed: grid, iso, ratio, list, methods, or file",
        ),
        ({"analysis": {"rules": ["mine.py:Nobody"]}}, r"analysis\.rules\.0: .* has no 'Nobody'"),
        (
            {"analysis": {"rules": [{"name": "more_params", "x": 1}]}},
            r"analysis\.rules\.0\.x: unknown key 'x'",
        ),
        (
            {"metrics": {"attack": {"step": 3}}},
            r"metrics\.attack\.step: unknown key 'step'; did you mean 'steps'",
        ),
        ({"base": "wrn-11-1", "seeds": [0, -1]}, r"base: 'wrn-11-1': depth 11 .*\n.*seeds\.1: got -1"),
        ({"metrics": {"attack": {"name": "pdg"}}}, r"metrics\.attack: got name 'pdg'; allowed: "),
    ],
)
def test_mistakes_are_named_at_their_place(tmp_path: Path, place: dict[str, Any], message: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    with own_config(tmp_path), pytest.raises(ConfigError, match=message):
        robust_nas.config.check(StudyConfig, {**TREE, **place}, "study")

"""Comparisons of training methods: what is compared, and what is concluded."""

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from compared_methods import OWN_NETWORK, comparison, fit_for_training
from small_study import HereEngine

from robust_nas.config import check, read_yaml, to_yaml, to_yaml_dict
from robust_nas.errors import ConfigError, StudyError
from robust_nas.execution import Ended, Task
from robust_nas.run_folder import read_json
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.run.runner import plan_study, report_study, run_study
from robust_nas.studies.run.trial import unpack
from robust_nas.training import LOSSES, STEPS


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure has tests of its own."""
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return comparison("natural", "trades", equal_passes=True)


@pytest.fixture(scope="module")
def finished(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(config, tmp_path_factory.mktemp("comparison") / "whole", engine=HereEngine())


def compared(folder: Path) -> dict[str, Any]:
    """The comparison of a folder, without its times."""
    tree: dict[str, Any] = read_json(folder / "analysis.json")["comparison"]
    for table in tree["tables"]:
        for row in table["rows"]:
            row["seconds_per_epoch"] = None
    return tree


def test_both_tables_hold_the_reference_first_and_train_the_same_thing_once(finished: Path) -> None:
    tree = compared(finished)
    assert tree["reference"] == "pgd-at"  # although nobody named it
    epochs, passes = tree["tables"]
    assert (epochs["arm"], passes["arm"]) == ("equal-epochs", "equal-passes")
    assert [(row["name"], row["epochs"]) for row in epochs["rows"]] == [
        ("pgd-at", 2),
        ("natural", 2),
        ("trades", 2),
    ]
    # 2 x 23 passes: 15.3 epochs of natural training, 1.7 of TRADES, which are the two of the first table
    assert [(row["name"], row["epochs"]) for row in passes["rows"]] == [
        ("pgd-at", 2),
        ("natural (15 epochs)", 15),
        ("trades", 2),
    ]
    assert [row["passes_ratio"] for row in passes["rows"]] == [1, 15 * 3 / (2 * 23), 27 / 23]
    assert len(list((finished / "trials").iterdir())) == 4 * 2


def test_its_numbers_are_those_of_the_answers_on_every_image(finished: Path) -> None:
    plan, tree = read_json(finished / "plan.json"), compared(finished)
    trials = {point["name"]: point["trials"] for point in plan["points"]}

    def answers(name: str, key: str) -> Any:
        found = (read_json(finished / "trials" / trial / "outcome.json") for trial in trials[name])
        return torch.tensor(
            [unpack(each["outcomes"][key], each["images"]).tolist() for each in found]
        ).double()

    for row in tree["tables"][0]["rows"]:
        for key in ("clean", "attacked", "robust"):
            mean = answers(row["name"], key).mean().item()
            assert row["metrics"][key]["mean"] == pytest.approx(mean)
            if row["differences"]:
                difference = row["differences"][key]
                assert difference["effect"] == pytest.approx(mean - answers("pgd-at", key).mean().item())
                low, high = difference["interval"]
                assert low <= difference["effect"] <= high
        assert row["metrics"]["robust"]["mean"] <= row["metrics"]["attacked"]["mean"]
        assert row["validation"]["overfitting"] >= 0
    outcome = read_json(finished / "trials" / trials["trades"][1] / "outcome.json")
    gap = outcome["measures"]["train_robust"] - outcome["measures"]["robust_gap"]
    assert answers("trades", "attacked")[1].mean().item() == pytest.approx(gap)


def test_the_csv_has_a_row_for_each_method_of_each_table(finished: Path) -> None:
    tree = compared(finished)
    with (finished / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(table["arm"], row) for table in tree["tables"] for row in table["rows"]]
    assert [(row["table"], row["name"]) for row in rows] == [(arm, row["name"]) for arm, row in expected]
    for row, (_, known) in zip(rows, expected, strict=True):
        assert float(row["robust_mean"]) == known["metrics"]["robust"]["mean"]
        effect = known["differences"].get("robust", {}).get("effect")
        assert row["robust_difference"] == ("" if effect is None else str(effect))


class StoppedError(Exception):
    """What ends a driver in these tests."""


class StoppingEngine(HereEngine):
    """Ends the driver after some trials."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        for number, end in enumerate(super().run(tasks, started), 1):
            yield end
            if number == self.after:
                raise StoppedError


def test_stopped_and_resumed_it_ends_in_the_same_tables(
    config: StudyConfig, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        run_study(config, tmp_path / "cut", engine=StoppingEngine(3))
    part = report_study(tmp_path / "cut")["comparison"]
    assert sum(len(row["seeds"]) for row in part["tables"][0]["rows"]) < 6
    folder = run_study(config, tmp_path / "cut", mode="resume", engine=HereEngine())
    assert compared(folder) == compared(finished)


def test_more_methods_train_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "more")], check=True)
    engine = HereEngine()
    more = comparison("natural", "trades", "n-fgsm", equal_passes=True)
    folder = run_study(more, tmp_path / "more", mode="resume", engine=engine)
    assert len(engine.ran) == 2 * 2  # n-fgsm, of the same epochs and of the same passes, with both seeds
    before, after = compared(finished), compared(folder)
    assert [row["name"] for row in after["tables"][0]["rows"]] == ["pgd-at", "natural", "trades", "n-fgsm"]
    kept = ("metrics", "validation", "verdicts")
    for old, new in zip(before["tables"][0]["rows"], after["tables"][0]["rows"], strict=False):
        assert [old[key] for key in kept] == [new[key] for key in kept]


def test_one_seed_has_no_interval_and_no_p(tmp_path: Path) -> None:
    folder = run_study(comparison("natural", "natural+swa", seeds=1), tmp_path / "one", engine=HereEngine())
    (table,) = compared(folder)["tables"]
    assert [row["passes"] for row in table["rows"]] == [
        23,
        3,
        3.5,
    ]  # its mean is validated in one epoch of two
    difference = table["rows"][1]["differences"]["robust"]
    assert difference["effect"] != 0
    assert [difference[key] for key in ("interval", "p", "p_holm")] == [None] * 3
    assert table["rows"][1]["metrics"]["robust"]["interval"] is None


def test_methods_of_ones_own_and_the_resolved_config(tmp_path: Path) -> None:
    own = "compare.methods={mild: {loss: {name: trades, beta: 2}}, smooth: pgd-at+awp}"
    config = comparison(
        changes=[own, "compare.equal_passes=[mild]", "training.hooks=[{name: awp, gamma: 0.001}]"]
    )
    assert check(StudyConfig, to_yaml_dict(config), "again") == config
    file = tmp_path / "study.yaml"
    file.write_text(to_yaml(config))
    assert check(StudyConfig, read_yaml(file), "from a file") == config
    plan, _ = plan_study(config)
    recipes = {point.name: point.training for point in plan.points}
    assert list(recipes) == ["pgd-at", "mild", "smooth"]  # 2 x 23 and 2 x 27 passes are 2 epochs
    assert recipes["mild"].loss.model_dump()["beta"] == 2
    assert [len(recipes[name].hooks) for name in recipes] == [1, 1, 2]  # after those of the recipe
    attack = recipes["pgd-at"].loss.inner_attack
    assert attack is not None
    assert attack.eps == 0.1  # the threat model's; the recipe's own attack has 0.12


def test_what_a_method_is_warned_of_is_in_plan_and_comparison(tmp_path: Path) -> None:
    far = "compare.methods.far={loss: {name: pgd-at, attack: {name: n-fgsm, eps: 0.3}}}"
    piecewise = "training.schedule={name: piecewise, milestones: [1]}"
    config = comparison("far", changes=[far, piecewise], seeds=1, equal_passes=True)
    plan, _ = plan_study(config)
    assert any("with eps 0.3" in warning for warning in plan.warnings)
    assert any(warning.startswith("far (9 epochs): the schedule piecewise") for warning in plan.warnings)
    decoded, _ = plan_study(comparison("ladder", seeds=1))
    assert any(
        warning.startswith("ladder: passes and time leave out the training") for warning in decoded.warnings
    )
    assert not any("leave out" in warning for warning in plan.warnings)
    folder = run_study(config, tmp_path / "warned", engine=HereEngine())
    assert any("with eps 0.3" in warning for warning in compared(folder)["warnings"])


@pytest.mark.parametrize(
    ("losses", "changes", "message"),
    [
        (("madry",), (), "got method 'madry'; allowed: a loss"),
        (("trades+sam",), (), "method trades.sam: hooks.0: got name 'sam'"),
        (("natural", "natural"), (), "natural named twice"),
        ((), (), "name methods to compare"),
        (("mine",), ("compare.methods.mine={loss: {name: trades, beta: -1}}",), r"methods\.mine\.loss\.beta"),
        (("natural",), ("compare.equal_passes=[trades]",), "got trades; methods of this comparison"),
        (("natural",), ("compare.metods={}",), "unknown key 'metods'; did you mean 'methods'"),
        (("natural",), ("training.drop_path=0.1",), "method pgd-at: training.drop_path: got 0.1"),
    ],
)
def test_mistakes_are_named(losses: tuple[str, ...], changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparison(*losses, changes=changes)


def test_no_seed_and_no_network_are_mistakes() -> None:
    with pytest.raises(ConfigError, match="seeds: got 0; a number from 1"):
        comparison("natural", seeds=0)
    with pytest.raises(ConfigError, match="name the network to train"):
        comparison("natural", architecture=None)


def test_two_names_of_one_training_are_refused() -> None:
    config = comparison("twin", changes=["compare.methods.twin={loss: pgd-at}"])
    with pytest.raises(StudyError, match="'pgd-at' and 'twin' are the same training"):
        plan_study(config)


def test_a_mistake_is_found_without_torch() -> None:
    code = (
        "import sys\n"
        "from robust_nas.errors import ConfigError\n"
        "from robust_nas.studies.comparison import load_comparison\n"
        "for losses, seeds in ((['madry'], 1), (['trades'], 0)):\n"
        "    try:\n"
        "        load_comparison('quickstart', losses, architecture='wrn-10-1', seeds=seeds)\n"
        "    except ConfigError:\n"
        "        continue\n"
        "    raise AssertionError(losses)\n"
        "print([name for name in ('torch', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", sorted({*LOSSES.names(), *STEPS.names()[1:], *fit_for_training(), "pgd-at+awp"})
)
def test_every_method_is_named_by_its_name_alone(name: str) -> None:
    """With the attack of its publication, under the threat model."""
    network = OWN_NETWORK.get(name, "wrn-10-1")  # which can be mixed inside
    config = comparison(name, equal_passes=True, architecture=network)
    assert name in [method.label for design in config.space for method in getattr(design, "methods", ())]

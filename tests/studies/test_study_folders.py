"""Study folders of other versions, with other figures or edited code: no trial is lost, none is taken for another."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from extending import example
from small_study import TREE, HereEngine, small_study, table

from robust_nas.config import read_yaml, to_yaml, tree_hash
from robust_nas.errors import RunExistsError
from robust_nas.run_folder import read_json
from robust_nas.studies.run.journal import JOURNAL
from robust_nas.studies.run.runner import run_study
from robust_nas.user_code import own_config

WIDE = {"type": "mlp", "name": "wide", "depth": 1, "width": 24}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the reports, which take longer than the trials."""
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with one seed, run once."""
    return run_study(small_study(seeds=1), tmp_path_factory.mktemp("study") / "whole", engine=HereEngine())


def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def as_of_an_earlier_version(folder: Path, *absent: str) -> None:
    """Remove keys from the stored config and trials, which get the ids that they had without them."""
    names = {}
    without(folder / "config.yaml", absent)
    for content in sorted((folder / "trials").glob("*/trial.json")):
        tree = without(content, absent)
        names[content.parent.name] = earlier = tree_hash(tree)
        model = content.parent / "model" / "config.yaml"
        text = to_yaml({**read_yaml(model), "trial": tree})
        model.write_text(text.replace(content.parent.name, earlier))
        content.parent.rename(content.parent.with_name(earlier))
    for name in (JOURNAL, "plan.json"):
        text = (folder / name).read_text()
        for old, new in names.items():
            text = text.replace(old, new)
        (folder / name).write_text(text)


def without(path: Path, absent: Sequence[str]) -> dict[str, Any]:
    """Remove keys from a file and return its tree."""
    tree = read_yaml(path)  # JSON too
    for key in absent:
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.get(section, {})
        node.pop(last, None)
    path.write_text(json.dumps(tree) if path.suffix == ".json" else to_yaml(tree))
    return tree


ADDED = ("figures", "training.hooks", "metrics.lip_max_steps", "evaluation.surrogates", "guard")


@pytest.mark.parametrize("content", ["trial.json", "model/config.yaml"])
def test_keys_that_a_later_version_added_rename_no_trial(
    finished: Path, tmp_path: Path, content: str
) -> None:
    folder = copied(finished, tmp_path)
    as_of_an_earlier_version(folder, *ADDED)
    if content != "trial.json":  # as folders were before there was one
        for path in (folder / "trials").glob("*/trial.json"):
            path.unlink()
    was = {path.name for path in (folder / "trials").iterdir()}
    assert not was & {path.name for path in (finished / "trials").iterdir()}
    run_study(small_study(seeds=1), folder, mode="resume", engine=(engine := HereEngine()))
    assert engine.ran == []
    assert {path.name for path in (folder / "trials").iterdir()} == was
    assert table(folder) == table(finished)
    # One more seed runs by today's ids; an unfinished trial goes on under the name that it had.
    unfinished = min(was)
    (folder / "trials" / unfinished / "outcome.json").unlink()
    run_study(small_study(seeds=2), folder, mode="resume", engine=(engine := HereEngine()))
    assert len(engine.ran) == 1 + 4
    assert unfinished in engine.ran
    names = ("name", "seed", "clean", "robust", "params")
    before = [[row[key] for key in names] for row in table(finished)]
    assert before == [[row[key] for key in names] for row in table(folder) if row["seed"] != "1"]


def test_a_trial_that_differs_in_a_key_that_is_not_stored_is_another_trial(
    finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path)
    as_of_an_earlier_version(folder, "metrics.sensitivity_draws")  # 2 in the study, by default 0
    with pytest.raises(RunExistsError, match=r"different: metrics\.sensitivity_draws"):
        run_study(small_study(seeds=1), folder, mode="resume", engine=HereEngine())


def test_figures_may_be_added_to_a_study(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    run_study(
        small_study(seeds=1, figures=["study-seeds"]), folder, mode="resume", engine=(engine := HereEngine())
    )
    assert engine.ran == []
    assert read_yaml(folder / "config.yaml")["figures"] == [{"name": "study-seeds"}]


def test_a_study_whose_code_was_changed_is_not_grown(tmp_path: Path) -> None:
    (tmp_path / "mixup.py").write_text(example("mixup.py"))
    (tmp_path / "widest_wins.py").write_text(example("widest_wins.py"))
    folder, alone = tmp_path / "study", [{"name": "list", "architectures": [WIDE]}]
    with own_config(tmp_path):
        loss = {**TREE["training"], "loss": {"name": "mixup.py:Mixup"}}
        analysis = {"draws": 200, "rules": ["widest_wins.py:WidestWins"]}
        study, more = (
            small_study(training=loss, space=alone, seeds=seeds, analysis=analysis) for seeds in (1, 2)
        )
    run_study(study, folder, engine=HereEngine())
    (folder / "report.html").touch()

    def changed(file: str) -> None:  # as if it had been edited since
        path = folder / "environment.json"
        tree = read_json(path)
        tree["user_code"][f"{tmp_path}/{file}"] = "0" * 64
        path.write_text(json.dumps(tree))

    changed("mixup.py")
    run_study(study, folder, mode="resume", engine=HereEngine())  # finished
    with pytest.raises(RunExistsError, match=f"another version of {tmp_path}/mixup.py; put the file back"):
        run_study(more, folder, mode="resume", engine=HereEngine())
    run_study(study, folder, mode="overwrite", engine=HereEngine())
    changed("widest_wins.py")  # by which no trial is computed
    run_study(more, folder, mode="resume", engine=(engine := HereEngine()))
    assert len(engine.ran) == 2

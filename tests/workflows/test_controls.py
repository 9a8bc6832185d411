"""Controls and finalists of a search: what is trained next to its result, when, and what is said of the difference."""

import json
import shutil

import numpy as np
import pytest
from cases import config

import robust_nas
from robust_nas import run_search
from robust_nas.data import random_indices
from robust_nas.errors import ConfigError, SearchSpaceError
from robust_nas.run_folder import read_json
from robust_nas.spaces.isomorphism import isomorphism_class
from robust_nas.statistics import Measurements, contrast
from robust_nas.workflows import controls

PARETO = {
    "name": "random",
    "cells": 4,
    "channels": 2,
    "evaluations": 8,
    "objectives": {"score": "max", "macs": "min"},
    "evaluator": {"name": "proxy", "proxy": "params", "images": 8},
}
WIDE = (  # so that there are networks of equal MACs
    "space.changes.operations=[skip_connect, sep_conv_3x3, dil_conv_3x3, sep_conv_5x5, avg_pool_3x3]",
    "evaluation.findings=none",
)


def pareto(*overrides):
    return config(f"search={json.dumps(PARETO)}", *WIDE, *overrides)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A search of a Pareto set with two controls and a finalist."""
    folder = tmp_path_factory.mktemp("controls") / "search"
    return run_search(pareto("search.controls=2", "search.finalists=1"), folder)


def test_controls_have_the_macs_of_the_result_and_are_other_networks(compared):
    tree, folder = compared.controls, compared.folder / "controls"
    groups = [one["group"] for one in tree["networks"]]
    assert groups == ["result", "finalist", "random", "random"]
    own = [robust_nas.load_architecture(folder / one["label"]) for one in tree["networks"]]
    result, finalist, *random = own
    assert result == compared.architecture
    macs = compared.record["macs"]
    low, high = read_json(folder / "controls.json")["macs_window"]
    assert (low, high) == pytest.approx((0.95 * macs, 1.05 * macs))
    for one in random:
        assert low <= robust_nas.count(one, (1, 8, 8), 10).macs <= high
        assert (one.cells, one.channels) == (result.cells, result.channels)
    assert len({isomorphism_class(one) for one in (result, *random)}) == 3
    assert finalist.name in {one["name"] for one in compared.record["pareto_set"]} - {
        compared.record["taken"]
    }
    assert robust_nas.count(finalist, (1, 8, 8), 10).params == next(
        one["score"] for one in compared.record["pareto_set"] if one["name"] == finalist.name
    )


def test_the_difference_is_paired_by_image(compared):
    folder, answers = compared.folder / "controls", {}
    for one in compared.controls["networks"]:
        tree = read_json(folder / one["label"] / "evaluation" / "evaluation.json")
        first = random_indices(360, 360, 5)[: tree["robust"]["images"]].tolist()
        missed = {*tree["clean"]["wrong_indices"], *(i for a in tree["attacks"] for i in a["broken_indices"])}
        answers[one["label"]] = [index not in missed for index in first]
        assert sum(answers[one["label"]]) == tree["robust"]["correct"]
    result = Measurements(name="result", seeds=(0,), outcomes={"robust": np.array([answers["result"]])})
    both = np.array([answers["random-0"], answers["random-1"]])
    expected = contrast(
        result, Measurements(name="random", seeds=(0, 1), outcomes={"robust": both}), "robust"
    )
    found = compared.controls["difference"]["robust"]
    assert found["effect"] == pytest.approx(expected.effect)
    assert found["includes_seeds"]
    assert found["interval"] == pytest.approx(list(expected.interval))
    low = found["interval"][0]
    assert compared.controls["words"] == ("" if low > 0 else "not ") + "better than random at equal MACs"


def test_controls_change_nothing_of_the_search_and_may_be_asked_for_later(compared, tmp_path):
    plain = run_search(pareto(), tmp_path / "plain")
    assert plain.controls is None
    assert not (plain.folder / "controls").exists()
    assert plain.record == {**compared.record, "seconds": plain.record["seconds"]}
    for name in ("config.yaml", "metrics.jsonl", "architecture.yaml"):
        assert (plain.folder / name).read_bytes() == (compared.folder / name).read_bytes()


def test_killed_controls_go_on_and_what_is_finished_is_kept(compared, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    shutil.copytree(compared.folder, folder)
    shutil.rmtree(folder / "controls" / "random-1")
    (folder / "controls" / "controls.json").unlink()
    trained = []
    train = controls.train
    monkeypatch.setattr(
        controls, "train", lambda *args, **kwargs: trained.append(args[2].name) or train(*args, **kwargs)
    )
    before = (folder / "controls" / "random-0" / "model.safetensors").stat().st_mtime_ns
    again = run_search(pareto("search.controls=2", "search.finalists=1"), folder, mode="resume")
    assert again.controls == compared.controls
    assert trained == ["result", again.controls["networks"][1]["label"], "random-0", "random-1"]
    assert (folder / "controls" / "random-0" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_evaluates_its_result_once_and_controls_may_follow(tmp_path, call):
    small = (*WIDE, "search.epochs=1")
    before = robust_nas.run(config(*small), tmp_path / "run")
    assert "controls" not in before["artifacts"]
    summary = robust_nas.run(config(*small, "search.controls=1"), tmp_path / "run", mode="resume")
    tree = read_json(tmp_path / "run" / summary["artifacts"]["controls"])
    assert {path.name for path in (tmp_path / "run" / "controls").iterdir()} == {"controls.json", "random-0"}
    assert next(one["robust"] for one in tree["networks"]) == before["robust"]
    assert not tree["difference"]["robust"]["includes_seeds"]
    drawn = ("search.controls=1", "figures=[{name: search}]")  # of a finished run: nothing else is done
    robust_nas.run(config(*small, *drawn), tmp_path / "run", mode="resume")
    shown = call("run", "--resume", tmp_path / "run", "-q")
    assert not (tmp_path / "run" / "search" / "controls").exists()
    assert (shown.code, "better than random at equal MACs" in shown.out) == (0, True)
    assert "over images alone" in shown.out or "no interval" in shown.out


def test_more_controls_than_networks_are_refused_and_the_search_stays(tmp_path):
    few = ('space.changes={"nodes": 1, "operations": ["skip_connect"]}', "search.controls=3")
    values = config(
        f"search={json.dumps({**PARETO, 'evaluations': 1, 'objectives': {'score': 'max'}})}", *few
    )
    with pytest.raises(SearchSpaceError, match=r"search\.controls: got 3; .* gave 0 networks"):
        run_search(values, tmp_path)
    assert (tmp_path / "architecture.yaml").is_file()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("search.finalists=2", "search.objectives={score: max}"),
            "finalists: got 2; they are of a Pareto set",
        ),
        (("search.controls=-1",), r"search\.controls: got -1"),
        (("search.controls=1", "training.auxiliary_weight=0.4"), "feature maps of at least 4x4"),
    ],
)
def test_what_cannot_follow_a_search_is_refused_before_it(overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_search(pareto(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()

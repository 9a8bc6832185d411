"""Strategies of the user's own, from a file that a config names and from an installed package: searched and resumed."""

import json

import pytest
from cases import config
from extending import example
from plugins import install
from small_search import Stopped

from robust_nas import run_search
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.records import read_json
from robust_nas.search import STRATEGIES
from robust_nas.user_code import own_config

ONE_SHOT = example("natural_alphas.py")
SAMPLED = example("hill_climbing.py")
PLUGINS = {
    "NaturalAlphas": (ONE_SHOT, {"epochs": 4, "batch_size": 25, "scale": 2.0}),
    "HillClimbing": (SAMPLED, {"evaluations": 4, "evaluator": {"epochs": 1}}),
}
SIZE = {"cells": 4, "channels": 2}


@pytest.fixture(params=PLUGINS)
def plugin(request, tmp_path):
    """The class's name, its file, and the keys of the search section but its name."""
    source, section = PLUGINS[request.param]
    assert len(source.splitlines()) < 40
    path = tmp_path / "mine" / f"{request.param.lower()}.py"
    path.parent.mkdir()
    path.write_text(source)
    return request.param, path, {**SIZE, **section}


def cut_at(done_at):
    def progress(job, done, total, note=""):
        if done == done_at:
            raise Stopped

    return progress


def searched_twice(tmp_path, name, section):
    """The result of a search, after it was held against one that was killed and resumed."""
    values = config(f"search={json.dumps({'name': name, **section})}", "checkpoint_seconds=0")
    assert values.search.name == name
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = run_search(values, whole)
    with pytest.raises(Stopped):
        run_search(values, cut, progress=cut_at(3))
    found = run_search(values, cut, mode="resume")
    assert found.architecture == expected.architecture
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert {**found.record, "seconds": 0} == {**expected.record, "seconds": 0}
    assert isinstance(expected.record[values.search.criterion.key], float)
    return expected


def test_a_strategy_in_a_file_is_searched_with_and_resumed(plugin, tmp_path):
    name, path, section = plugin
    with own_config(tmp_path):
        searched_twice(tmp_path, f"{path}:{name}", section)


def test_a_strategy_of_an_installed_package_is_searched_with_and_resumed(plugin, tmp_path, monkeypatch):
    name, path, section = plugin
    install(monkeypatch, path.parent, STRATEGIES, "mine", f"{path.stem}:{name}")
    result = searched_twice(tmp_path, "mine", section)
    assert "name: mine" in (result.folder / "config.yaml").read_text()
    package = f"{path.stem}:{name} of mine_{path.stem} 1.0"
    assert read_json(result.folder / "environment.json")["plugins"] == {"mine": package}


def test_a_strategy_in_a_file_is_refused_where_nobody_allowed_it(tmp_path):
    path = tmp_path / "foreign.py"
    path.write_text(ONE_SHOT)
    with pytest.raises(CodeRefusedError, match=r"foreign\.py"):
        config(f"search={json.dumps({'name': f'{path}:NaturalAlphas'})}")


def test_what_is_no_strategy_is_refused(tmp_path):
    (tmp_path / "other.py").write_text("class Other: ...\n")
    with own_config(tmp_path), pytest.raises(ConfigError, match=r"a subclass of .*\.Strategy is needed"):
        config('search={"name": "other.py:Other"}')

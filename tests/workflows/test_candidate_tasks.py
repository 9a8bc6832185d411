"""Candidates in workers: the same search as in this process, resumed on another engine; and what no engine can do."""

import contextlib
import json

import pytest
from cases import config
from ray_cluster import needs_ray, ray_cluster

from robust_nas import run_search
from robust_nas.errors import ConfigError, RunError
from robust_nas.execution import Ended, LocalEngine, RayEngine
from robust_nas.search import EVALUATORS
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.workflows import candidate_tasks

SEARCH = {"name": "evolution", "cells": 4, "channels": 2, "evaluations": 4, "batch": 2, "population": 2}
PROXY = {"evaluator": {"name": "proxy", "proxy": "synflow", "images": 8}}


def sampled(**changes):
    return config(f"search={json.dumps({**SEARCH, **changes})}", "checkpoint_seconds=0", "threads=1")


class HereBackwards(LocalEngine):
    """Runs tasks in this process, the last one first; the task called `lost` fails."""

    lost: str = ""

    @contextlib.contextmanager
    def opened(self):
        yield self.backwards

    def backwards(self, tasks, started):
        for task in reversed(tasks):
            payload = json.loads(json.dumps(task.payload))
            if task.id == self.lost:
                yield Ended(task.id, None, {"type": "WorkerLost", "message": "killed by signal 9"}, 2, 0.0)
            else:
                yield Ended(task.id, candidate_tasks.evaluate_candidate(payload, task.folder), None, 1, 0.0)


def outcome(found):
    record = {**found.record, "seconds": 0}
    return found.architecture, record, (found.folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("evaluator", [PROXY, {"evaluator": {"epochs": 1}}], ids=["proxy", "training"])
def test_a_search_on_an_engine_is_that_of_this_process_also_after_a_loss(evaluator, tmp_path):
    values = sampled(**evaluator)
    expected = outcome(run_search(values, tmp_path / "here"))
    assert outcome(run_search(values, tmp_path / "engine", engine=HereBackwards())) == expected
    for lost in ("tiny-0", "tiny-2"):
        with pytest.raises(
            RunError, match=rf"{lost}: WorkerLost: killed by signal 9; continue with --resume"
        ):
            run_search(values, tmp_path / lost, engine=HereBackwards(lost=lost))
        assert outcome(run_search(values, tmp_path / lost, mode="resume")) == expected


def test_worker_processes_find_the_same(tmp_path):
    values = sampled(**PROXY, evaluations=2)
    expected = outcome(run_search(values, tmp_path / "here"))
    assert outcome(run_search(values, tmp_path / "two", engine=LocalEngine(workers=2))) == expected


@pytest.mark.slow
@needs_ray
def test_a_ray_cluster_finds_the_same(tmp_path):
    values = sampled(**PROXY)
    expected = outcome(run_search(values, tmp_path / "here"))
    with ray_cluster() as cluster:
        engine = RayEngine(address=cluster.address)
        assert outcome(run_search(values, tmp_path / "ray", engine=engine)) == expected


def test_a_worker_measures_the_reference_of_zero_cost_once(tmp_path, monkeypatch):
    calls, measure = [], ZeroCost.measure

    def counted(self, *rest):
        calls.append(rest[0].name)
        return measure(self, *rest)

    monkeypatch.setattr(ZeroCost, "measure", counted)
    method = {"channels": 2, "cells_per_stage": 1, "batch_size": 8, "draws": 1}
    values = sampled(evaluator={"name": "zero-cost", "reference": 10, "method": method}, evaluations=3)
    run_search(values, tmp_path / "engine", engine=HereBackwards())
    assert len(calls) == 13


def test_an_engine_is_refused_where_nothing_can_run_on_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="engine local: strategy dsara evaluates no candidates"):
        run_search(config(), tmp_path, engine=LocalEngine())
    monkeypatch.setattr(EVALUATORS.get("proxy"), "parallel", False)
    with pytest.raises(
        ConfigError, match="engine local: evaluator proxy synflow works in this process alone"
    ):
        run_search(sampled(**PROXY), tmp_path, engine=LocalEngine())

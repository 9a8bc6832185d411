"""A study on a real Ray cluster of two nodes, one of which is removed in mid-run: every trial ends, equal table."""

import importlib.util
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from small_study import TRIALS, small_study, table

from robust_nas.execution import LocalEngine, RayEngine
from robust_nas.execution.calling import import_path
from robust_nas.runs import read_json
from robust_nas.studies.run.journal import read_journal
from robust_nas.studies.run.runner import run_study

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
def test_a_removed_node_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", import_path())
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests may fill the machine
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    doomed = cluster.add_node(**NODE)
    folder = tmp_path / "ray"

    def remove() -> None:
        while Counter(event["event"] for event in read_journal(folder))["done"] < 2:
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)

    removal = threading.Thread(target=remove)
    removal.start()
    try:
        run_study(small_study(), folder, engine=RayEngine(address=cluster.address))
        removal.join()
    finally:
        cluster.shutdown()
    assert read_json(folder / "analysis.json")["cost"]["done"] == TRIALS
    done = Counter(event["trial"] for event in read_journal(folder) if event["event"] == "done")
    assert (len(done), set(done.values())) == (TRIALS, {1})
    local = run_study(small_study(), tmp_path / "local", engine=LocalEngine(workers=2))
    assert table(folder) == table(local)

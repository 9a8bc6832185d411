"""A study on a real Ray cluster of two nodes, one of which is removed in mid-run: every trial ends, equal table."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from ray_cluster import NODE, needs_ray, ray_cluster
from small_study import TRIALS, HereEngine, small_study, table

from robust_nas.execution import RayEngine
from robust_nas.run_folder import read_json
from robust_nas.studies.run.journal import read_journal
from robust_nas.studies.run.runner import run_study


@pytest.mark.slow
@needs_ray
def test_a_removed_node_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)
    folder = tmp_path / "ray"
    with ray_cluster() as cluster:
        doomed = cluster.add_node(**NODE)

        def remove() -> None:
            while Counter(event["event"] for event in read_journal(folder))["done"] < 2:
                time.sleep(0.02)
            cluster.remove_node(doomed, allow_graceful=False)

        removal = threading.Thread(target=remove)
        removal.start()
        run_study(small_study(), folder, engine=RayEngine(address=cluster.address))
        removal.join()
    assert read_json(folder / "analysis.json")["cost"]["done"] == TRIALS
    done = Counter(event["trial"] for event in read_journal(folder) if event["event"] == "done")
    assert (len(done), set(done.values())) == (TRIALS, {1})
    here = run_study(small_study(), tmp_path / "here", engine=HereEngine())
    assert table(folder) == table(here)

"""A real Ray cluster on this machine, for the tests of what runs on one."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from robust_nas.execution.calling import import_path

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Yield a cluster of one node of one processor; `add_node(**NODE)` adds another."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", import_path())  # the nodes import the functions of the tests
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests may fill the machine
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield made
        finally:
            made.shutdown()

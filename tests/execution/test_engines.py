"""What every engine promises: one suite, run over the local workers and over a Ray cluster of two nodes."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from ray_cluster import NODE, needs_ray, ray_cluster

from robust_nas.errors import ConfigError, DistributionError
from robust_nas.execution import LocalEngine, RayEngine, Task
from robust_nas.execution.calling import import_path


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as made:
        made.add_node(**NODE)
        yield made


@pytest.fixture(params=["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])])
def engine(request):
    if request.param == "local":
        return LocalEngine(workers=2)
    return RayEngine(address=request.getfixturevalue("cluster").address, retries=1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def task(tmp_path):
    def make(name, function, **payload):
        folder = tmp_path / name
        folder.mkdir()
        module = "" if ":" in function else "execution_tasks:"
        return Task(name, module + function, payload, folder)

    return make


def run(engine, tasks):
    starts = []
    ends = list(engine.run(tasks, lambda name, attempt: starts.append((name, attempt))))
    assert sorted(end.id for end in ends) == sorted(task.id for task in tasks)
    assert len(set(starts)) == len(starts)
    return {end.id: end for end in ends}


def test_results_are_json_and_files_are_in_the_tasks_folders(engine, task):
    tasks = [task(str(n), "square", n=n) for n in range(7)]
    ends = run(engine, tasks)
    for n, one in enumerate(tasks):
        end = ends[one.id]
        assert end.result == {"n": n, "square": n * n, "pair": [n, 1.5], "threads": "1"}
        assert (end.error, end.attempts) == (None, 1)
        assert end.seconds >= 0
        assert [path.name for path in one.folder.iterdir()] == ["inner"]
        assert (one.folder / "inner" / "n.txt").read_text() == str(n)


def test_no_tasks_are_no_ends(engine):
    assert run(engine, []) == {}


def test_an_opened_engine_runs_several_times(engine, task):
    with engine.opened() as run_tasks:
        for n in range(3):
            (end,) = run_tasks([task(str(n), "square", n=n)], lambda *_: None)
            assert end.result["square"] == n * n


ERRORS = {
    "diverges": ("DivergenceError", "loss: became nan"),
    "fails": ("ZeroDivisionError", "a made-up fault"),
    "leaves": ("SystemExit", "3"),
    "no_such_module:f": ("ModuleNotFoundError", "No module named 'no_such_module'"),
    "execution_tasks:nobody": ("AttributeError", "has no attribute 'nobody'"),
    "not_a_dict": ("TypeError", "returned list; a dict is needed"),
}


def test_what_a_function_raises_is_its_end_and_no_other_tasks(engine, task):
    tasks = [task(str(n), function) for n, function in enumerate(ERRORS)]
    tasks += [task("set", "not_json", kind="set"), task("nan", "not_json", kind="nan")]
    tasks += [task("payload", "square", n={1, 2}), task("good", "square", n=3)]
    ends = run(engine, tasks)
    for n, (kind, message) in enumerate(ERRORS.values()):
        end = ends[str(n)]
        assert (end.result, end.error["type"], end.attempts) == (None, kind, 1)
        assert message in end.error["message"]
    for name, words in [("set", "what it returned"), ("nan", "what it returned"), ("payload", "the payload")]:
        assert ends[name].error["type"] == "TypeError"
        assert f"{words} is not JSON" in ends[name].error["message"]
    assert ends["good"].result["square"] == 9


def test_a_process_that_dies_is_replaced_and_its_task_tried_again(engine, task, tmp_path):
    tasks = [task("once", "dies_once", mark=str(tmp_path / "mark")), task("killed", "killed")]
    tasks += [task(str(n), "square", n=n) for n in range(3)]
    ends = run(engine, tasks)
    assert (ends["once"].result, ends["once"].attempts) == ({"alive": True}, 2)
    assert ends["killed"].error["type"] == "WorkerLost"
    assert ends["killed"].attempts == engine.retries + 1
    assert all(ends[str(n)].result["square"] == n * n for n in range(3))


def test_a_task_continues_what_its_folder_holds(engine, task):
    one = task("a", "visits")
    (one.folder / "visits.txt").write_text("1")
    (one.folder / "scratch.txt").write_text("of a run that was stopped")
    assert run(engine, [one])["a"].result == {"visits": 2}
    assert [path.name for path in one.folder.iterdir()] == ["visits.txt"]
    assert (one.folder / "visits.txt").read_text() == "2"


@needs_ray
@pytest.mark.slow
def test_tasks_of_a_removed_node_run_again_elsewhere_with_equal_results(cluster, task, tmp_path):
    doomed = cluster.add_node(**NODE)
    until, pids = tmp_path / "until", tmp_path / "pids"
    pids.mkdir()
    tasks = [task(f"long-{n}", "waits", until=str(until), pids=str(pids)) for n in range(3)]
    tasks += [task(f"short-{n}", "square", n=n) for n in range(5)]

    def remove():
        while len(list(pids.glob("*.pid"))) < 3:  # one on each node
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)
        while all(alive(int(path.read_text())) for path in pids.glob("*.pid")):
            time.sleep(0.02)
        until.touch()

    removal = threading.Thread(target=remove)
    removal.start()
    ends = run(RayEngine(address=cluster.address), tasks)
    removal.join()
    assert sum(end.attempts for end in ends.values()) == len(tasks) + 1
    elsewhere = [one._replace(folder=tmp_path / "elsewhere" / one.id) for one in tasks]
    for one in elsewhere:
        one.folder.mkdir(parents=True)
    assert {name: end.result for name, end in ends.items()} == {
        name: end.result for name, end in run(LocalEngine(workers=2), elsewhere).items()
    }


@needs_ray
@pytest.mark.slow
def test_a_task_that_no_node_has_room_for_is_refused(cluster, task):
    with pytest.raises(ConfigError, match="a task needs 8 CPU and 0 GPU, and no node has them"):
        run(RayEngine(address=cluster.address, cpus=8), [task("a", "square", n=1)])


@needs_ray
@pytest.mark.slow
def test_the_loss_of_the_last_node_with_room_ends_the_run(cluster, task, monkeypatch, tmp_path):
    slots = iter([1, 1, 0])
    monkeypatch.setattr(RayEngine, "_slots", lambda *_: next(slots))
    one = task("a", "process_id", until=str(tmp_path / "never"))
    with pytest.raises(DistributionError, match=r"continue with --resume"):
        run(RayEngine(address=cluster.address), [one])


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999999", "nonsense", "ray://127.0.0.1:1"])
def test_an_address_without_a_cluster_is_refused_at_once(address, task):
    with pytest.raises(ConfigError, match=f"no cluster at {address}"):
        run(RayEngine(address=address), [task("a", "square", n=1)])


@needs_ray
def test_a_server_of_another_kind_is_refused_at_once(task):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def talk():
            connection = server.accept()[0]
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            connection.close()

        talking = threading.Thread(target=talk)
        talking.start()
        with pytest.raises(
            ConfigError, match=f"no cluster at {address}: (what listens there is not Ray|.*reset)"
        ):
            run(RayEngine(address=address), [task("a", "square", n=1)])
        talking.join()


OWN_CLUSTER = """
import json, os, sys
from pathlib import Path
from robust_nas.execution import RayEngine, Task
folder = Path(sys.argv[1])
folder.mkdir()
one = Task("a", "execution_tasks:listening", {"driver": os.getpid()}, folder)
engine = RayEngine()
engine.refuse_unreachable()  # as a study does first, before there is a folder
print(json.dumps([end.result or end.error for end in engine.run([one], lambda *_: None)]))
"""


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs /proc")
def test_a_cluster_of_our_own_listens_on_the_loopback_interface_alone(tmp_path):
    command = [sys.executable, "-c", OWN_CLUSTER, str(tmp_path / "a")]
    environment = {**os.environ, "PYTHONPATH": import_path()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    [found] = json.loads(done.stdout.splitlines()[-1])
    assert {"gcs_server", "raylet"} <= found.keys()
    assert {address for addresses in found.values() for address in addresses} == {"127.0.0.1"}


@needs_ray
def test_where_ray_would_listen_on_every_interface_it_is_not_started(task, monkeypatch):
    import ray

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "192.0.2.1")
    with pytest.raises(ConfigError, match="would listen on every interface"):
        run(RayEngine(), [task("a", "square", n=1)])


@needs_ray
def test_what_ray_raises_while_it_starts_is_one_sentence(task, monkeypatch):
    import ray

    def fails(**_):
        raise Exception("The current node timed out\n during   startup. " + "x" * 5000)

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(
        ConfigError, match="no cluster at this machine: The current node timed out during"
    ) as met:
        run(RayEngine(), [task("a", "square", n=1)])
    assert len(str(met.value)) < 500
    assert "\n" not in str(met.value)


def test_without_ray_the_command_that_installs_it_is_told(task, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'robust-nas\[ray\]'"):
        run(RayEngine(), [task("a", "square", n=1)])

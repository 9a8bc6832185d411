"""The local engine's own promises: what dies, what it says, and that nobody waits for ever or lives on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robust_nas.errors import ConfigError
from robust_nas.execution import LocalEngine, Task

DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pathlib import Path
from robust_nas.execution import LocalEngine, Task
folders = [Path(sys.argv[1]) / str(n) for n in range(2)]
tasks = [Task(one.name, "execution_tasks:process_id", {"until": sys.argv[2]}, one) for one in folders]
for ended in LocalEngine(workers=2).run(tasks, lambda *_: None):
    print(ended.id, flush=True)
"""


def task(tmp_path, name, function, **payload):
    folder = tmp_path / name
    folder.mkdir()
    return Task(name, f"execution_tasks:{function}", payload, folder)


def run(tasks, **options):
    ends = LocalEngine(**options).run(tasks, lambda *_: None)
    return {end.id: end for end in ends}


def eventually(condition):
    for _ in range(1500):
        if condition():
            return True
        time.sleep(0.02)
    return False


def pids(folders):
    assert eventually(lambda: all((f / "pid").exists() and (f / "pid").read_text() for f in folders))
    return [int((folder / "pid").read_text()) for folder in folders]


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z" and threads == 1  # nobody has waited for it yet; its other threads end later


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def origins(tmp_path, started=lambda *_: None, **payload):
    """Of three processes, one after the other."""
    tasks = [task(tmp_path, str(n), "origin", **payload) for n in range(3)]
    ends = list(LocalEngine(workers=1).run(tasks, started))
    assert [end.error["type"] for end in ends] == ["SystemExit"] * 3
    return [json.loads((one.folder / "origin.json").read_text()) for one in tasks]


def test_workers_are_forked_from_one_prepared_process_that_ends_with_the_run(tmp_path):
    found = origins(tmp_path)
    (server,) = {one["parent"] for one in found}
    assert [one["prepared"] for one in found] == [[server]] * 3
    assert server != os.getpid()
    assert gone(server)


def test_a_worker_sees_the_variables_and_the_folder_of_its_own_start(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = os.getcwd()

    def started(name, attempt):
        if name == "1":
            monkeypatch.setenv("A_VARIABLE", "later")
        if name == "2":
            monkeypatch.delenv("A_VARIABLE")
            monkeypatch.chdir(elsewhere)

    found = origins(tmp_path, started)
    assert [one["variable"] for one in found] == [None, "later", None]
    assert [one["cwd"] for one in found] == [first, first, str(elsewhere)]
    assert len({tuple(one["command"]) for one in found}) == 1  # as the environment's record has it


def test_where_no_fork_is_sound_every_worker_is_a_fresh_process(tmp_path, monkeypatch):
    (tmp_path / "threads").mkdir()
    threads = origins(tmp_path / "threads", thread=True)
    monkeypatch.setattr("robust_nas.execution.forks.sys.platform", "darwin")
    (tmp_path / "system").mkdir()
    for one in threads + origins(tmp_path / "system"):
        assert (one["parent"], one["prepared"]) == (os.getpid(), [])


def test_a_lost_server_costs_its_workers_and_nothing_else(tmp_path):
    tasks = [
        task(tmp_path, "0", "loses_its_server", mark=str(tmp_path / "mark")),
        task(tmp_path, "1", "loses_its_server", mark=str(tmp_path)),
    ]
    ends = {end.id: end for end in LocalEngine(workers=1).run(tasks, lambda *_: None)}
    assert [(end.error, end.result) for end in ends.values()] == [(None, {"prepared": []})] * 2
    assert (ends["0"].attempts, ends["1"].attempts) == (2, 1)


def test_a_lost_worker_says_how_it_died_and_its_last_words(tmp_path):
    end = run([task(tmp_path, "a", "dies")], workers=1)["a"]
    assert (end.result, end.attempts, end.error["type"]) == (None, 2, "WorkerLost")
    assert end.error["message"] == "exited with code 7; its last words: about to die"
    assert (tmp_path / "a.log").read_text() == "about to die\n" * 2
    assert list((tmp_path / "a").iterdir()) == []


def test_a_child_that_holds_the_pipes_of_a_dead_worker_is_not_waited_for(tmp_path):
    end = run([task(tmp_path, "a", "leaves_a_child")], workers=1, retries=0)["a"]
    assert end.error == {"type": "WorkerLost", "message": "killed by signal 9"}
    assert eventually(lambda: gone(int((tmp_path / "a" / "child").read_text())))


def test_all_workers_killed_in_mid_task_lose_nothing(tmp_path):
    until = tmp_path / "until"
    tasks = [task(tmp_path, str(n), "process_id", until=str(until)) for n in range(3)]
    starts = []

    def started(name, attempt):
        starts.append((name, attempt))
        if len(starts) == 3:
            until.touch()

    engine = LocalEngine(workers=2).run(tasks, started)

    def kill():
        for pid in pids([one.folder for one in tasks[:2]]):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ends = {end.id: end for end in engine}
    killer.join()
    assert all(end.result == {"done": True} for end in ends.values())
    assert [ends[name].attempts for name in "012"] == [2, 2, 1]
    assert sorted(starts) == [("0", 1), ("0", 2), ("1", 1), ("1", 2), ("2", 1)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_driver(tmp_path, number):
    folders = [tmp_path / str(n) for n in range(2)]
    for folder in folders:
        folder.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(tmp_path / "never")]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    workers = pids(folders)
    servers = {parent(pid) for pid in workers}
    assert len(servers) == 1
    driver.send_signal(number)
    assert driver.communicate(timeout=60)[0] == b""
    assert eventually(lambda: all(gone(pid) for pid in [*workers, *servers]))
    assert list(temporary.iterdir()) == []


def test_closing_the_iterator_ends_the_workers(tmp_path):
    tasks = [
        task(tmp_path, "quick", "square", n=2),
        task(tmp_path, "long", "process_id", until=str(tmp_path / "never")),
    ]
    ends = LocalEngine(workers=2).run(tasks, lambda *_: None)
    assert next(ends).id == "quick"
    (worker,) = pids([tasks[1].folder])
    ends.close()
    assert gone(worker)


def test_a_worker_is_kept_after_our_errors_and_replaced_after_others(tmp_path):
    until = tmp_path / "until"
    until.touch()
    names = ["process_id", "diverges", "process_id", "fails", "process_id"]
    tasks = [task(tmp_path, str(n), name, until=str(until)) for n, name in enumerate(names)]
    run(tasks, workers=1)
    first, second, third = pids([tmp_path / str(n) for n in (0, 2, 4)])
    assert first == second != third


def test_prints_and_tracebacks_are_kept_beside_the_folder_and_empty_logs_are_not(tmp_path):
    run([task(tmp_path, "a", "fails"), task(tmp_path, "b", "square", n=1)], workers=2)
    log = (tmp_path / "a.log").read_text()
    assert log.startswith("said before\nTraceback")
    assert log.endswith("ZeroDivisionError: a made-up fault\n")
    assert not (tmp_path / "b.log").exists()


def test_workers_and_their_server_serve_several_runs_until_the_context_ends(tmp_path):
    until = tmp_path / "until"
    until.touch()
    ended = []

    def kill(folder):
        (worker,) = pids([folder])
        server = parent(worker)
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: gone(worker))
        return server

    def failing(engine):
        with engine.opened() as run_tasks:
            for name in "abc":
                ended.extend(
                    run_tasks([task(tmp_path, name, "process_id", until=str(until))], lambda *_: None)
                )
                if name == "b":
                    ended.append(kill(tmp_path / "b"))  # while it waits for the next run
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing(LocalEngine(workers=1))
    *_, server, last_end = ended
    assert (last_end.attempts, last_end.error) == (1, None)
    first, second, third = pids([tmp_path / name for name in "abc"])
    assert first == second != third
    assert all(gone(pid) for pid in (third, server))


def test_a_run_that_is_closed_ends_its_workers_and_the_next_one_has_others(tmp_path):
    until = tmp_path / "until"
    until.touch()
    with LocalEngine(workers=2).opened() as run_tasks:
        long = task(tmp_path, "long", "process_id", until=str(tmp_path / "never"))
        ends = run_tasks([task(tmp_path, "quick", "square", n=2), long], lambda *_: None)
        assert next(ends).id == "quick"
        (worker,) = pids([long.folder])
        ends.close()
        assert gone(worker)
        (end,) = run_tasks([task(tmp_path, "a", "process_id", until=str(until))], lambda *_: None)
        assert end.result == {"done": True}


def test_gpus_are_dealt_out_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    ends = run([task(tmp_path, str(n), "gpus", count=3) for n in range(3)], workers=3)
    assert [ends[name].result["gpus"] for name in "012"] == ["4", "6", "4"]


def test_a_worker_that_dies_between_two_tasks_costs_none_of_them_a_try(tmp_path):
    until = tmp_path / "until"
    until.touch()
    tasks = [task(tmp_path, str(n), "process_id", until=str(until)) for n in range(2)]
    ends = LocalEngine(workers=1).run(tasks, lambda *_: None)
    assert next(ends).id == "0"
    (worker,) = pids([tasks[0].folder])
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: gone(worker))
    assert [(end.id, end.attempts, end.error) for end in ends] == [("1", 1, None)]


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "two"])
def test_impossible_numbers_of_workers_are_refused(workers):
    with pytest.raises(ConfigError, match="workers"):
        LocalEngine(workers=workers)


def test_an_engine_prints_itself():
    assert LocalEngine(workers=1).text == "local, 1 worker"
    assert json.loads(LocalEngine().model_dump_json()) == {
        "name": "local",
        "workers": 2,
        "threads": 1,
        "retries": 1,
    }

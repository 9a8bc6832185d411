"""What every engine promises: one suite, run over the local workers and over Ray."""

import pytest

from robust_nas.execution import LocalEngine, Task

ENGINES = {"local": lambda: LocalEngine(workers=2)}


@pytest.fixture(params=list(ENGINES))
def engine(request):
    return ENGINES[request.param]()


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
        assert end.result == {"n": n, "square": n * n, "pair": [n, 1.5]}
        assert (end.error, end.attempts) == (None, 1)
        assert end.seconds >= 0
        assert [path.name for path in one.folder.iterdir()] == ["inner"]
        assert (one.folder / "inner" / "n.txt").read_text() == str(n)


def test_no_tasks_are_no_ends(engine):
    assert run(engine, []) == {}


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
    (one.folder / "scratch.txt").write_text("of a run that was stopped")
    assert [run(engine, [one])["a"].result["visits"] for _ in range(2)] == [1, 2]
    assert [path.name for path in one.folder.iterdir()] == ["visits.txt"]


def test_one_thread_in_each_process(engine, task):
    end = run(engine, [task("a", "threads", names=["OMP_NUM_THREADS"])])["a"]
    assert end.result == {"OMP_NUM_THREADS": "1"}

"""Kill every verb at random instants, resume it, and compare what it leaves with an uninterrupted run's.

    PYTHONPATH=tests:tests/studies .venv/bin/python scripts/stress_kills.py [KILLS] [SEED]

Half of the kills come after a random time, half before a random write, rename or removal of a file, where litter is
made. Four in five are `kill -9`, the others SIGTERM, which has to say so and to exit with 143. A job is killed up to
`ROUNDS` times, each time where it was resumed, before it may end. Then its folder holds the files of the
uninterrupted run with the same content: bytes of weights, architectures, metrics, sources and tables, and records
without what a clock or the machine says. Figures are written, but not rendered, and no latency is measured.
`tests/test_stress_kills.py` runs some of these kills.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import forks  # type: ignore[import-not-found]
from small_study import HereEngine, small_study  # type: ignore[import-not-found]

from robust_nas.config import to_yaml
from robust_nas.files import foreign

ROUNDS = 4
SAYS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
CLOCK = {
    "digests",
    "seconds",
    "training_seconds",
    "seconds_this_call",
    "seconds_per_step",
    "latency_ms",
    "ended",
    "started",
    "timing",
}
BYTES = (".safetensors", ".yaml", ".jsonl", ".py", ".pt", ".onnx", ".csv", ".png", ".svg")
NOT_COMPARED = {
    "compression.csv",
    "checkpoint.pt",
    "environment.json",
    "journal.jsonl",
    "analysis.json",
    "report.html",
}
LAYOUT = {
    "stages": ["accurate", "robust"],
    "reduction_cells": ["reduce"],
    "reductions": ["1/2"],
    "filters": [1, 2],
}
PGD = {"name": "pgd", "eps": 0.1, "steps": 1}
RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "seed": 5,
    "device": "cpu",
    "threads": 1,
    "checkpoint_seconds": 0,
    "data": {"name": "digits", "limit": 100, "validation": 0.2},
    "space": {
        "name": "dsara",
        "changes": {"nodes": 2, "operations": ["max_pool_3x3", "skip_connect"], "layout": LAYOUT},
    },
    "search": {
        "epochs": 2,
        "stage1_epochs": 1,
        "batch_size": 20,
        "cells": 3,
        "channels": 2,
        "attack": {"name": "fgsm-rs", "eps": 0.1},
    },
    "network": {"cells": 3, "channels": 2},
    "training": {
        "epochs": 2,
        "batch_size": 40,
        "loss": {"name": "pgd-at", "attack": {**PGD, "keep": "last"}},
        "validation_attack": PGD,
    },
    "evaluation": {
        "threat_model": {"norm": "linf", "eps": 0.1},
        "images": 20,
        "findings": "none",
        "attacks": [{"attack": {"name": "fgsm"}}, {"attack": {"name": "pgd", "steps": 2}}],
    },
}
NETWORK = {
    "type": "residual",
    "name": "small",
    "stem": 4,
    "depths": [1, 1],
    "widths": [4, 8],
    "strides": [1, 2],
}
STUDY: dict[str, Any] = {"seeds": 1, "space": [{"name": "grid", "axes": {"width": [8, 16]}}]}
GDWS = ("--method", "gdws", "--macs", "0.9", "compression.gdws.alpha.images=10", "compression.max_loss=0.9")
# The words of each verb; {out} is its folder, {base} holds the recipe, a network and a model trained of it.
VERBS = {
    "search": "search {base}/tiny.yaml --out {out} --resume",
    "train": "train {base}/tiny.yaml --architecture {base}/small.yaml --out {out} --resume",
    "evaluate": "evaluate {base}/model --out {out} --resume",
    "export": "export {base}/model --out {out} --format source --format program --overwrite",
    "compress": f"compress {{base}}/model {' '.join(GDWS)} --out {{out}} --resume",
    "study": "study {out}",
    "run": "run {base}/tiny.yaml --out {out} --resume",
}


class Kill(NamedTuple):
    """Where a process is killed: after `seconds`, or before its `event`-th change of a file."""

    number: int  # of the signal
    seconds: float | None = None
    event: int | None = None


def work(words: list[str], kill: Kill | None, counted: Path | None) -> None:
    """Run a verb in this process, which is killed on the way; else write seconds and changes of files to `counted`."""
    began, changes = time.perf_counter(), 0

    def change(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in SAYS or (
            event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 3)
        ):
            return
        changes += 1
        if kill is not None and changes == kill.event:
            os.kill(os.getpid(), kill.number)

    from robust_nas import cli, run_study

    signal.signal(signal.SIGTERM, cli._terminate)
    with (
        mock.patch("robust_nas.figures.style._rendered", return_value=b"<svg/>"),
        mock.patch("robust_nas.export.latency.latencies", _untimed),
    ):
        sys.addaudithook(change)
        if kill is not None and kill.seconds is not None:
            threading.Timer(kill.seconds, os.kill, (os.getpid(), kill.number)).start()
        code = 0
        try:
            if words[0] == "study":
                run_study(small_study(**STUDY), Path(words[1]), mode="resume", engine=HereEngine())
            else:
                sys.argv = ["robust-nas", *words, "--quiet"]
                cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
            if words[0] == "study" and code == cli.TERMINATED:
                print("terminated", flush=True)  # as `main` says it, which did not run
        if counted is not None:
            counted.write_text(json.dumps([time.perf_counter() - began, changes]))
    os._exit(code)


def _untimed(networks: dict[str, Any], *_: object) -> tuple[dict[str, Any], list[str]]:
    """Return no latencies: what they take, and are, is the machine's."""
    return {name: {} for name in networks}, []


def words_of(verb: str, base: Path, out: Path) -> list[str]:
    """Return the command of a verb on a folder."""
    return VERBS[verb].format(base=base, out=out).split()


def prepare(base: Path, log: Path) -> None:
    """Write the recipe and the network, and train a model of it."""
    base.mkdir(parents=True)
    (base / "tiny.yaml").write_text(to_yaml(RECIPE))
    (base / "small.yaml").write_text(to_yaml(NETWORK))
    forks.run(log, work, words_of("train", base, base / "model"), None, None)


def killed(verb: str, base: Path, out: Path, kill: Kill, log: Path) -> bool:
    """Run a verb until it is killed; return whether it was. Raises `AssertionError` where it ended otherwise."""
    code = forks.exit_code(log, work, words_of(verb, base, out), kill, None)
    text, about = log.read_text(), f"{verb}, {kill}: exit code {code}"
    ended = {0, -kill.number} | ({143} if kill.number == signal.SIGTERM else set())
    refuse(
        code not in ended or "Traceback" in text or (code == 143 and "terminated" not in text), about, text
    )
    return bool(code)


def refuse(wrong: bool, *about: object) -> None:
    """Raise `AssertionError` where something is wrong."""
    if wrong:
        raise AssertionError("\n".join(map(str, about)))


def without_clock(tree: Any) -> Any:
    """Return a record without what a clock says."""
    if isinstance(tree, dict):
        return {key: without_clock(value) for key, value in tree.items() if key not in CLOCK}
    return [without_clock(value) for value in tree] if isinstance(tree, list) else tree


def contents(folder: Path) -> dict[str, Any]:
    """Return every file of a folder by its path, as far as it does not depend on a clock."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[f"{name}/"] = None
        elif path.name in NOT_COMPARED or "latency" in path.name:
            found[name] = None
        elif path.suffix == ".json":
            found[name] = without_clock(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes() if path.suffix in BYTES else None
    return found


def refuse_difference(verb: str, whole: Path, cut: Path, kills: list[Kill]) -> None:
    """Raise `AssertionError` where a folder is not as the uninterrupted run left its own."""
    one, other = contents(whole), contents(cut)
    refuse(one.keys() != other.keys(), verb, kills, sorted(one.keys() ^ other.keys()))
    different = [name for name in one if one[name] != other[name]]
    refuse(bool(different), verb, kills, different)
    others = [] if verb == "export" else list(foreign(cut))
    refuse(bool(others), verb, kills, others)


def stress(kills: int, seed: int, say: Callable[[str], None] = print) -> Counter[str]:
    """Kill the verbs in turn, `kills` times in all; return how often each was killed. Raises `AssertionError`."""
    rounds = min(ROUNDS, -(-kills // len(VERBS)))
    draw, done = random.Random(seed), Counter[str]()  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as place:
        root, log = Path(place), Path(place) / "log.txt"
        base = root / "base"
        prepare(base, log)
        size: dict[str, tuple[float, int]] = {}
        while done.total() < kills:
            for verb in VERBS:
                whole, cut = root / "whole" / verb, root / "cut" / verb
                if verb not in size:
                    forks.run(log, work, words_of(verb, base, whole), None, root / "counted.json")
                    seconds, events = json.loads((root / "counted.json").read_text())
                    size[verb] = seconds, events
                    say(f"{verb}: {seconds:.1f} s, {events} changes of files")
                here: list[Kill] = []
                for part in range(1, 1 + min(rounds, kills - done.total())):
                    number = signal.SIGTERM if draw.random() < 0.2 else signal.SIGKILL
                    seconds, events = (total / part for total in size[verb])  # the rest, roughly
                    if draw.random() < 0.5:
                        here.append(Kill(number, seconds=seconds * draw.random()))
                    else:
                        here.append(Kill(number, event=draw.randint(1, int(events))))
                    if not killed(verb, base, cut, here[-1], log):
                        break
                    done[verb] += 1
                forks.run(log, work, words_of(verb, base, cut), None, None)
                refuse_difference(verb, whole, cut, here)
                shutil.rmtree(cut)
                say(f"{done.total()} kills; {verb} after {len(here)} tries as without")
                if done.total() >= kills:
                    break
    return done


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    started = time.perf_counter()
    figures = stress(given[0] if given else 200, given[1] if given[1:] else 0)
    print(f"{figures.total()} kills in {time.perf_counter() - started:.0f} s: {dict(figures)}")

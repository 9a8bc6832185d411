"""The reference of a run: a known network, trained and evaluated by the same recipe, next to what is found.

Nothing in it waits for the search. With two `workers` a second process makes it from the start, to the same files as
one process does after the search. A compression is of the reference where a run has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robust_nas.config import check, to_dict
from robust_nas.errors import ArchitectureError, CompressionError, DataError, RunError
from robust_nas.evaluation.report import RECORDED
from robust_nas.execution import LocalEngine, Task
from robust_nas.records import Shape, read_record
from robust_nas.run_folder import Mode, Progress, silent
from robust_nas.spaces import Architecture, load_architecture
from robust_nas.user_code import allow_code, allowed_files
from robust_nas.workflows.compress import compress
from robust_nas.workflows.compress_steps import refuse_out_of_reach
from robust_nas.workflows.config import CompressionConfig, RunConfig
from robust_nas.workflows.context import JobContext, load_context, refuse_cell_options
from robust_nas.workflows.evaluate import run_evaluation
from robust_nas.workflows.memory import refuse_memory
from robust_nas.workflows.report.at_end import within_a_job
from robust_nas.workflows.train import train, trained_record
from robust_nas.workflows.untrained import untrained_network

REFERENCE = "reference"  # folder of its `model` and `evaluation`
COMPRESSED = "compressed"  # folder
FUNCTION = "robust_nas.workflows.reference:make_in_worker"
FOUND = "found"  # label
NETWORKS: Shape = [
    {
        "label": str,
        "network": str,
        "params": int,
        "macs": int,
        "bytes": int,
        "clean": float,
        "robust": float,
        "robust_interval": [float, float],
        "verdict": str,
    }
]


def reference_of(config: RunConfig) -> Architecture | None:
    """Return the network that the config names as the reference, in the form that is trained; None: it names none.

    Raises `ArchitectureError`.
    """
    if config.reference is None:
        return None
    try:
        return config.network.made_of(load_architecture(config.reference))
    except ArchitectureError as error:
        raise ArchitectureError(f"reference: {error}") from None


def refuse_reference(config: RunConfig, context: JobContext) -> None:
    """Raise the errors of what is done with the reference later: a recipe or a compression that it cannot have."""
    architecture = reference_of(config)
    if architecture is None:
        return
    refuse_cell_options(config.training, architecture)
    refuse_memory(architecture, config.training, context)
    if config.compression is not None:
        network = untrained_network(architecture, config.training, context, config.seed).cpu()
        try:
            refuse_out_of_reach(network, context.dataset.shape, config.compression.steps)
        except CompressionError as error:
            raise CompressionError(f"compression of the reference {architecture.name}: {error}") from None


def make_reference(
    config: RunConfig,
    folder: Path,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
) -> None:
    """Train, evaluate and, where the config says so, compress the reference of the run in `folder`."""
    architecture = reference_of(config)
    assert architecture is not None  # noqa: S101 - asked before

    def shown(job: str, done: int, total: int, note: str = "") -> None:
        progress(f"{REFERENCE}: {job}", done, total, note)

    given: dict[str, Any] = {"mode": mode, "progress": shown, "context": context}
    model = train(config, architecture, folder / REFERENCE / "model", **given)
    run_evaluation(config, model, folder / REFERENCE / "evaluation", **given)
    if config.compression is not None:
        compress(CompressionConfig.of(config), model, folder / COMPRESSED, **given)


def make_in_worker(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the reference whose folder is `folder` in a process of its own.

    Raises `DataError` where it has other images than the run.
    """
    with allow_code(payload["code"]), within_a_job():
        config = check(RunConfig, payload["config"], "the config of the run")
        context = load_context(config)
        if context.dataset.checksum != payload["checksum"]:
            raise DataError(f"{context.dataset.name}: its images changed while the run began")
        make_reference(config, folder.parent, mode=payload["mode"], context=context)
    return {}


def networks_of(folder: Path, compressed: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return size and accuracies of the networks of a finished run: found, reference, and compressed."""
    places = [(FOUND, "model", "evaluation")]
    if (folder / REFERENCE / "model").is_dir():
        places.append((REFERENCE, f"{REFERENCE}/model", f"{REFERENCE}/evaluation"))
    rows = []
    for label, model, evaluation in places:
        trained = trained_record(folder / model)
        judged = read_record(folder / evaluation, "evaluation.json", RECORDED)
        name = load_architecture(folder / model).name
        rows.append(_row(label, name, trained, judged, folder / model))
    if compressed is not None:
        one = next(row for row in compressed["networks"] if row["label"] == compressed["chosen"])
        rows.append(_row(COMPRESSED, one["label"], one, one["test"], folder / COMPRESSED / "model"))
    return rows


def _row(label: str, name: str, size: dict[str, Any], judged: dict[str, Any], model: Path) -> dict[str, Any]:
    robust = judged["robust"]
    return {
        "label": label,
        "network": name,
        "params": size["params"],
        "macs": size["macs"],
        "bytes": (model / "model.safetensors").stat().st_size,
        "clean": judged["clean"]["accuracy"],
        "robust": robust["accuracy"],
        "robust_interval": robust["interval"],
        "verdict": judged["verdict"]["status"],
    }


@contextmanager
def at_the_same_time(
    config: RunConfig, folder: Path, mode: Mode, context: JobContext
) -> Iterator[Callable[[], None]]:
    """Make the reference in a second process inside; give a call that waits for its end.

    The call raises `RunError` where it failed. A process that nobody waits for ends with the context.
    """
    payload = {
        "config": to_dict(config),
        "code": [str(path) for path in allowed_files()],
        "checksum": context.dataset.checksum,
        "mode": mode,
    }
    task = Task(REFERENCE, FUNCTION, payload, folder / REFERENCE)
    cores = os.cpu_count() or 1
    engine = LocalEngine(workers=1, threads=cores if config.threads == "auto" else config.threads, retries=0)
    # The engine is closed first: then the thread has nothing to wait for.
    with ThreadPoolExecutor(1) as thread, engine.opened() as run:
        ends = thread.submit(lambda: list(run([task], lambda *_: None)))

        def wait() -> None:
            for end in ends.result():
                if end.error is not None:
                    raise RunError(
                        f"{task.folder}: {end.error['type']}: {end.error['message'][:2000]}; continue with --resume"
                    )

        yield wait

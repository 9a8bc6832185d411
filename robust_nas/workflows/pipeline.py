"""Run all jobs of one config: search, train, evaluate, compress, export, one job after the other.

Search, training, evaluation and compression take a config, read the artifact before, write one run folder each, and can
be continued with `mode="resume"`; an export is written again. Torch is imported when a job is called, not before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from robust_nas.distributed import refuse_several
from robust_nas.environment import environment
from robust_nas.errors import ConfigError, RobustNASError, RunError
from robust_nas.evaluation.report import RECORDED
from robust_nas.evaluation.verdict import version_of
from robust_nas.extension import is_extended
from robust_nas.files import is_writable
from robust_nas.records import Shape, read_environment, read_record
from robust_nas.run_folder import Mode, Progress, Run, is_complete, is_finished, silent, write_json
from robust_nas.stages import announce
from robust_nas.workflows.compress import DELIVERED, EVALUATED, compress
from robust_nas.workflows.config import CompressionConfig, RunConfig, doubts
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    load_context,
    refuse_attacks,
    refuse_other_images,
    refuse_recipe,
)
from robust_nas.workflows.controls import CONTROLS, compare_with_controls, is_compared
from robust_nas.workflows.deployed_rule import refuse_random_network
from robust_nas.workflows.evaluate import run_evaluation
from robust_nas.workflows.export import export_model
from robust_nas.workflows.memory import refuse_memory_of_run
from robust_nas.workflows.places import of_config
from robust_nas.workflows.reference import (
    NETWORKS,
    REFERENCE,
    at_the_same_time,
    make_reference,
    networks_of,
    refuse_reference,
)
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.run_job import RunJob
from robust_nas.workflows.search import find_architecture, refuse_unfit
from robust_nas.workflows.search_job import refuse_more_seeds
from robust_nas.workflows.search_verdict import VERDICT, judge_search, seed_folders
from robust_nas.workflows.train import train, trained_record
from robust_nas.workflows.verb_stages import run_stages

Warn = Callable[[str], None]
SUMMARY: Shape = {  # what is read of `summary.json`
    "name": str,
    "dataset": str,
    "norm": str,
    "eps": float,
    "seed": int,
    "params": int,
    "macs": int,
    "seconds": float,
    "artifacts": {str: str},
    "networks?": NETWORKS,
}


def run(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """Search, train, evaluate, compress and export; return the content of `summary.json` (in `results/<name>`)."""
    refuse_several("run")
    folder = of_config("run", out, config.name)
    began = time.perf_counter()
    job = RunJob.of(config)
    if mode == "resume":
        refuse_more_seeds(folder, config.search.seeds)
    behind = mode == "resume" and _is_behind(folder, config)
    context = load_context(config) if behind else context_unless_finished(config, folder, mode, job=job)
    if context is not None:
        _refuse_what_fails_later(config, context, folder, mode)
    with reporting(folder), Run(folder, job, mode, recipe=config) as outer:
        config = cast(RunConfig, cast(RunJob, outer.config).recipe_of(config))
        if (outer.finished and not behind) or context is None:
            _refuse_changed_model(folder)
            _draw_missing(config, folder)
            return read_record(folder, "summary.json", SUMMARY)
        for message in doubts(config):
            warn(message)
        write_json(folder / "environment.json", environment(config))
        inner: Mode = "resume" if mode == "resume" else "new"
        made = _all_jobs(config, context, folder, inner, progress, warn)
        summary = _summary(config, made, folder)
        summary["seconds_this_call"] = round(time.perf_counter() - began, 1)
        write_json(folder / "summary.json", summary)
        outer.finish({}, ["summary.json", *summary["artifacts"].values(), *_inside(folder)])
        return summary


def _is_behind(folder: Path, config: RunConfig) -> bool:
    """Return whether a finished run lacks controls, or its evaluation was extended by itself: the summary is old."""
    if not (is_finished(folder) and is_writable(folder)):
        return False
    if not is_compared(config, folder / CONTROLS):
        return True
    with contextlib.suppress(ConfigError, RunError):  # a damaged one is refused where it is read
        if is_extended(folder / "evaluation") and not is_finished(folder / "evaluation"):
            return True
        verdict = read_record(folder / "evaluation", "evaluation.json", RECORDED)
        summary = read_record(folder, "summary.json", SUMMARY)
        return any(summary.get(key, value) != value for key, value in _evaluated(verdict).items())
    return False


def _refuse_changed_model(folder: Path) -> None:
    """Raise `RunError` where the model of a finished run is no longer the one that was evaluated."""
    from robust_nas.evaluation.finished import finished_evaluations
    from robust_nas.nets import read_model

    model = folder / "model"
    if next(finished_evaluations(model, read_model(model).digest), None) is None:
        raise RunError(
            f"{model}: is not the model that {folder / 'evaluation'} is of, or this is damaged; put the files back, or "
            "run again with --overwrite"
        )


def _draw_missing(config: RunConfig, folder: Path) -> None:
    """Draw what failed, and the figures that the config asks for, in a finished run's jobs, but for the compression."""
    if config.figures or not all(is_complete(folder / part) for part in ("search", "model", "evaluation")):
        found = find_architecture(config, folder / "search", mode="resume")
        model = train(config, found.architecture, folder / "model", mode="resume")
        run_evaluation(config, model, folder / "evaluation", mode="resume")
        judge_search(config, found, folder / CONTROLS, model=model, verb="run")


def _refuse_what_fails_later(config: RunConfig, context: JobContext, folder: Path, mode: Mode) -> None:
    """Raise the errors of later jobs before the first one starts."""
    refuse_unfit(config, context)
    refuse_recipe(config.training, config.space.load(), context, config.network)
    refuse_memory_of_run(config, context)
    refuse_reference(config, context)
    refuse_random_network(config)
    refuse_attacks(config, context.dataset)
    if mode == "resume":
        for part in (".", *RunJob.of(config).parts()):
            refuse_other_images(folder / part, context.dataset)


class _Made(NamedTuple):
    """The records of the jobs of a run."""

    search: dict[str, Any]
    search_verdict: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    compression: dict[str, Any] | None
    not_exported: list[str]  # the reason for each model without an export


def _all_jobs(
    config: RunConfig, context: JobContext, folder: Path, mode: Mode, progress: Progress, warn: Warn
) -> _Made:
    """Run all jobs, each in its own folder; the reference in a process of its own where the config says so."""
    given: dict[str, Any] = {"mode": mode, "progress": progress, "context": context}
    announce(progress, run_stages(config, context))
    with contextlib.ExitStack() as stack:
        wait = None
        if config.reference is not None and config.workers > 1:
            wait = stack.enter_context(at_the_same_time(config, folder, mode, context))
        found = find_architecture(config, folder / "search", **given)
        write_json(folder / "environment.json", read_environment(seed_folders(found)[found.record["seed"]]))
        for message in found.record["warnings"]:
            if message not in doubts(config):  # which were said before
                warn(message)
        model = train(config, found.architecture, folder / "model", **given)
        verdict = run_evaluation(config, model, folder / "evaluation", **given)
        if wait is not None:
            progress(REFERENCE, 0, 1, "in a second process")
            wait()
            progress(REFERENCE, 1, 1)
        elif config.reference is not None:
            make_reference(config, folder, **given)
    compressed = None
    if config.compression is not None:
        source = model if config.reference is None else folder / REFERENCE / "model"
        given["mode"] = mode if config.reference is None else "resume"  # it is there
        compressed = compress(CompressionConfig.of(config), source, folder / "compressed", **given)
    if config.search.followed:
        compare_with_controls(
            config, found, folder / CONTROLS, model=model, progress=progress, context=context
        )
    judged = judge_search(config, found, folder / CONTROLS, model=model, verb="run")
    models = [model] if compressed is None else [model, folder / "compressed" / "model"]
    gaps = [gap for each in models if (gap := _export(each, each.with_name("export"))) is not None]
    for gap in gaps:
        warn(f"not exported: {gap}")
    return _Made(found.record, judged, trained_record(model), verdict, compressed, gaps)


_ARTIFACTS = {
    "architecture": "search/architecture.yaml",
    "search_verdict": f"search/{VERDICT}",
    "model": "model",
    "evaluation": "evaluation/evaluation.json",
    "export": "export/network.py",
    "cells": "search/figures/cells.png",
    "search_curves": "search/figures/search.png",
    "training_curves": "model/figures/training.png",
    "controls": "controls/controls.json",
    "evaluation_figure": "evaluation/figures/evaluation.png",
}
_COMPRESSED = {
    "compressed_model": "compressed/model",
    "compression": "compressed/compression.json",
    "compression_figure": "compressed/figures/compression.png",
    "compressed_export": "compressed/export/network.py",
}
_MODELS = ("model", f"{REFERENCE}/model", "compressed/model")
_EXPORTS = ("export", "compressed/export")


def _inside(folder: Path) -> list[str]:
    """Return the files without which the folders among the artifacts are of no use."""
    names = [f"{model}/{name}" for model in _MODELS for name in (*DELIVERED, *EVALUATED)]
    names += [f"{export}/weights.pt" for export in _EXPORTS]
    return [name for name in names if (folder / name).exists()]


def _summary(config: RunConfig, made: _Made, folder: Path) -> dict[str, Any]:
    """Return what a run came to, in numbers, and where its artifacts are."""
    verdict, threat_model = made.evaluation, config.evaluation.threat_model
    seconds = {
        "search": made.search["seconds"],
        "train": made.training["seconds"],
        "evaluate": round(verdict["seconds"], 1),
    }
    summary: dict[str, Any] = {
        "schema_version": 1,
        "name": config.name,
        **_evaluated(verdict),
        "search_verdict": made.search_verdict["status"],
        "norm": threat_model.norm,
        "eps": threat_model.eps,
        "params": made.training["params"],
        "macs": made.training["macs"],
        "seconds": round(made.search["seconds"] + made.training["seconds"] + verdict["seconds"], 1),
        "seconds_this_call": 0.0,
        "seconds_per_step": seconds,
        "seed": config.seed,
        "dataset": verdict["dataset"],
        "networks": networks_of(folder, made.compression),
        "artifacts": dict(_ARTIFACTS),
    }
    if (chosen := made.search.get("chosen_seed")) is not None:  # of a search over several seeds
        for name in ("cells", "search_curves"):
            path = _ARTIFACTS[name].removeprefix("search/")
            summary["artifacts"][name] = f"search/seed-{chosen}/{path}"
    if made.not_exported:
        summary["not_exported"] = made.not_exported
    if made.compression is not None:
        summary["compressed"] = made.compression["chosen"]
        summary["artifacts"] |= _COMPRESSED
    for name in [name for name, path in summary["artifacts"].items() if not (folder / path).exists()]:
        del summary["artifacts"][name]  # a figure that failed
    return summary


def _evaluated(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a summary says of an evaluation."""
    return {
        "clean": verdict["clean"]["accuracy"],
        "robust": verdict["robust"]["accuracy"],
        "verdict": verdict["verdict"]["status"],
        "findings_version": version_of(verdict["verdict"]),
        "attack": " + ".join(verdict["robust"]["attacks"]),
        "images": verdict["robust"]["images"],
        "images_clean": verdict["clean"]["images"],
    }


def _export(model: Path, folder: Path) -> str | None:
    """Export the model as plain source, in the place of an earlier export; return why there is none, or None.

    An export that fails, as of an operation of the user's own, must not cost the jobs before it.
    """
    if not (folder / "network.py").exists():
        (folder / "weights.pt").unlink(missing_ok=True)  # of an export that was lost in part
    try:
        export_model(model, folder, overwrite=True)
    except Exception as error:  # whatever the code of a plugin raises in its export
        kind = "" if isinstance(error, RobustNASError) else f"{type(error).__name__}: "
        return f"{model.name}: {kind}{error}; robust-nas export tries this folder again"
    return None

"""The whole way from one config: search, train, evaluate, compress, export, one job after the other.

Search, training, evaluation and compression take a config, read the artifact before, write one run folder each, and can
be continued with `mode="resume"`; an export is written anew. Torch is imported when a job is called, not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robust_nas.distributed import refuse_several
from robust_nas.environment import environment
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_json
from robust_nas.workflows.compress import compress
from robust_nas.workflows.config import RESULTS, CompressionConfig, RunConfig
from robust_nas.workflows.evaluate import run_evaluation
from robust_nas.workflows.export import export_model
from robust_nas.workflows.material import (
    needed,
    refuse_attacks,
    refuse_auxiliary_head,
    refuse_other_images,
    refuse_precision,
)
from robust_nas.workflows.search import run_search
from robust_nas.workflows.train import train

Warn = Callable[[str], None]


def run(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """The whole way; returns the tree of `summary.json` in the folder (default `results/<name>`)."""
    refuse_several("run")
    folder = Path(out) if out else RESULTS / config.name
    began = time.perf_counter()
    material = needed(config, folder, mode)
    if material is not None:
        for precision in (config.search.precision, config.training.precision):
            refuse_precision(precision, material.device)
        refuse_auxiliary_head(config, config.space.load().layout, material.dataset)
        refuse_attacks(config, material.dataset)
    if material is not None and mode == "resume":
        for part in (".", "search", "model", "evaluation", "compressed"):
            refuse_other_images(folder / part, material.dataset)
    with Run(folder, config, mode) as outer:
        if outer.finished:
            return read_json(folder / "summary.json")
        for message in _doubts(config):
            warn(message)
        write_json(folder / "environment.json", environment(config))
        inner: Mode = "resume" if mode == "resume" else "new"
        found = run_search(config, folder / "search", mode=inner, progress=progress, material=material)
        write_json(folder / "environment.json", read_json(found.folder / "environment.json"))
        for message in found.record["warnings"]:
            warn(message)
        model = train(
            config, found.architecture, folder / "model", mode=inner, progress=progress, material=material
        )
        verdict = run_evaluation(
            config, model, folder / "evaluation", mode=inner, progress=progress, material=material
        )
        compressed = None
        if config.compression is not None:
            compressed = compress(
                CompressionConfig.of(config),
                model,
                folder / "compressed",
                mode=inner,
                progress=progress,
                material=material,
            )
        _export(model, folder / "export")
        if compressed is not None:
            _export(folder / "compressed" / "model", folder / "compressed" / "export")
        trained = read_json(model / "result.json")
        summary: dict[str, Any] = {
            "schema_version": 1,
            "name": config.name,
            "clean": verdict["clean"]["accuracy"],
            "robust": verdict["robust"]["accuracy"],
            "verdict": verdict["verdict"]["status"],
            "attack": " + ".join(verdict["robust"]["attacks"]),
            "norm": config.evaluation.threat_model.norm,
            "eps": config.evaluation.threat_model.eps,
            "images": verdict["robust"]["images"],
            "images_clean": verdict["clean"]["images"],
            "params": trained["params"],
            "macs": trained["macs"],
            "seconds": round(found.record["seconds"] + trained["seconds"] + verdict["seconds"], 1),
            "seconds_this_call": round(time.perf_counter() - began, 1),
            "seconds_per_step": {
                "search": found.record["seconds"],
                "train": trained["seconds"],
                "evaluate": round(verdict["seconds"], 1),
            },
            "seed": config.seed,
            "dataset": verdict["dataset"],
            "artifacts": {
                "architecture": "search/architecture.yaml",
                "model": "model",
                "evaluation": "evaluation/evaluation.json",
                "export": "export/network.py",
                "cells": "search/figures/cells.png",
                "search_curves": "search/figures/search.png",
                "training_curves": "model/figures/training.png",
                "evaluation_figure": "evaluation/figures/evaluation.png",
            },
        }
        if compressed is not None:
            summary["compressed"] = compressed["chosen"]
            summary["artifacts"] |= {
                "compressed_model": "compressed/model",
                "compression": "compressed/compression.json",
                "compression_figure": "compressed/figures/compression.png",
                "compressed_export": "compressed/export/network.py",
            }
        write_json(folder / "summary.json", summary)
        inside = (
            "model/architecture.yaml",
            "model/model.json",
            "model/model.safetensors",
            "export/weights.pt",
        )
        outer.finish({}, ["summary.json", *summary["artifacts"].values(), *inside])
        return summary


def _export(model: Path, folder: Path) -> None:
    """Exports the model as plain source, anew."""
    if not (folder / "network.py").exists():
        (folder / "weights.pt").unlink(missing_ok=True)  # what a kill in an export left
    export_model(model, folder, overwrite=True)


def _doubts(config: RunConfig) -> list[str]:
    """What is allowed but probably not meant."""
    eps = config.evaluation.threat_model.eps
    return [
        f"{name} attacks with eps {found:.4g}, the evaluation with {eps:.4g}"
        for name, found in (
            *((f"search.{key}", attack.eps) for key, attack in config.search.attacks().items()),
            ("training.validation_attack", config.training.validation_attack.eps),
        )
        if found != eps
    ]

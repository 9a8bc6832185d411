"""A compression as a job: from a trained model to smaller ones, which of them is worth its place, and the proof of it.

What comes out is judged on the validation split (clean, and by the recipe's validation attack); the choice is made
there. The test set is met once by the original, by the chosen network and by its baselines, through the protocol of
`evaluate` and the compressed networks themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.config import Options
from robust_nas.distributed import refuse_several
from robust_nas.errors import CheckpointError, CompressionError, ConfigError
from robust_nas.evaluation.intervals import wilson
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_atomic, write_json
from robust_nas.workflows.compress_gdws import LAYERS
from robust_nas.workflows.compress_proof import describe, speed, verdicts
from robust_nas.workflows.compress_work import (
    ORIGINAL,
    Candidate,
    Source,
    Work,
    candidates,
    refuse_out_of_reach,
)
from robust_nas.workflows.config import RESULTS, CompressionConfig, EvaluationConfig
from robust_nas.workflows.evaluate import refuse_misfit, relative
from robust_nas.workflows.material import Material, needed, prepare, refuse_attacks, session

if TYPE_CHECKING:
    from torch import nn


class CompressJob(Options):
    """What a compression was made from: the config, and the model by its place and its weights."""

    config: CompressionConfig
    model: str  # as seen from the folder
    digest: str  # of everything that decides its answers (`nets/digest.py`)


def compress(
    config: CompressionConfig,
    model_folder: Path,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    material: Material | None = None,
) -> dict[str, Any]:
    """Compresses a model; returns the tree of `compression.json` (default folder `<model>-compressed`).

    The chosen network is the model folder `<folder>/model`. Raises `CheckpointError` for a model that cannot be read,
    `CompressionError` for a budget out of reach.
    """
    from robust_nas.nets import read_model

    model_folder = Path(model_folder)
    folder = Path(out) if out else default_folder(model_folder)
    if folder.resolve() in (model_folder.resolve(), *model_folder.resolve().parents):
        raise ConfigError(f"{folder}: holds the model; what is compressed needs a folder of its own")
    source = Source(read_model(model_folder), model_folder)
    job = CompressJob(config=config, model=relative(model_folder, folder), digest=source.model.digest)
    return _run(job, source, folder, mode, progress, material)


def default_folder(model_folder: Path) -> Path:
    """`<model>-compressed` beside a model folder, which may be given as `.`."""
    named = model_folder.resolve() if model_folder.name in ("", "..") else model_folder
    return named.with_name(f"{named.name}-compressed")


def compress_module(
    config: CompressionConfig,
    module: str,
    weights: Path | None = None,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compresses the torch module that `path.py:function` builds; default folder `results/<name>-compressed`.

    The module takes images `[B, C, H, W]` in 0..1 and gives logits. What comes out is loaded with
    `load_model(folder, module=build())`.
    """
    from robust_nas.data import load_dataset
    from robust_nas.nets import Model, ModelDescription
    from robust_nas.nets.user_module import load_module, module_digest, source_of

    folder = Path(out) if out else RESULTS / f"{config.name}-compressed"
    path, name = source_of(module)
    if weights is not None and Path(weights).is_dir():
        raise ConfigError(
            f"{weights}: is a folder; the weights of the uncompressed module, a file, are needed"
        )
    network = load_module(module, weights)
    dataset = load_dataset(config.data, seed=config.seed)
    _refuse_misfit(network, dataset.shape, module)
    _refuse_broken(network, str(weights or module))
    _refuse_shared(network, module)
    spec, colours = f"{path.name}:{name}", dataset.shape[0]
    description = ModelDescription(
        input_shape=dataset.shape,
        class_names=dataset.class_names,
        mean=(0.0,) * colours,
        std=(1.0,) * colours,
        made_by={"module": spec},
        module=spec,
    )
    job = CompressJob(
        config=config,
        model=f"{relative(path, folder)}:{name}",
        digest=module_digest(network, path),
    )
    source = Source(Model(network, None, description), None, module, weights)
    return _run(job, source, folder, mode, progress, None)


def _refuse_broken(network: nn.Module, source: str) -> None:
    """Raises `CheckpointError` for weights that are not finite."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds NaN or infinite values")


def _refuse_misfit(network: nn.Module, shape: tuple[int, int, int], source: str) -> None:
    """Raises `CompressionError` for a module that does not make logits of an image."""
    import torch

    network.eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, *shape))
    except Exception as error:  # whatever a foreign module raises
        raise CompressionError(
            f"{source}: does not take a float32 image of {shape}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.dtype != torch.float32:
        what = (
            f"{logits.dtype} {tuple(logits.shape)}"
            if isinstance(logits, torch.Tensor)
            else type(logits).__name__
        )
        raise CompressionError(f"{source}: gives {what}; float32 logits [1, classes] are needed")


def _refuse_shared(network: nn.Module, source: str) -> None:
    """Raises `CompressionError` for a tensor of two names, which a file of weights cannot hold."""
    seen: dict[int, str] = {}
    for name, tensor in network.state_dict().items():
        if tensor.numel() and seen.setdefault(tensor.data_ptr(), name) != name:
            raise CompressionError(
                f"{source}: {name} and {seen[tensor.data_ptr()]} are one tensor; a module in which every layer has its "
                "own is needed (compress_gdws in Python takes this one)"
            )


def _run(
    job: CompressJob,
    source: Source,
    folder: Path,
    mode: Mode,
    progress: Progress,
    material: Material | None,
) -> dict[str, Any]:
    refuse_several("compress")
    config = job.config
    material = material or needed(config, folder, mode)
    if material is not None:
        refuse_misfit(source.model.description, material.dataset, source.folder or Path(source.spec))
        refuse_attacks(EvaluationConfig.of(config), material.dataset)
        refuse_out_of_reach(source.model, config.compression)
    with Run(folder, job, mode) as run:
        if not run.finished:
            material = material or prepare(config)
            with session(run, config, material):
                work = Work(run, config, source, material, mode, progress)
                tree, made = _compress(work)
            tree = {"name": config.name, "model": job.model, **tree}
            write_json(folder / "compression.json", tree)
            drawn = _draw(tree, made, folder)
            result = {"chosen": tree["chosen"], "within_loss": tree["within_loss"]}
            models = [f"model/{name}" for name in DELIVERED if (folder / "model" / name).exists()]
            run.finish(result, ["compression.json", *drawn, *models])
        return read_json(folder / "compression.json")


def _compress(work: Work) -> tuple[dict[str, Any], list[Candidate]]:
    """The tree of `compression.json`, and the networks that came out."""
    config, dataset = work.config, work.material.dataset
    made = list(candidates(work))
    networks = {ORIGINAL: work.source.model.network}
    networks |= {candidate.label: work.read(candidate).network for candidate in made}
    rows = [describe(work, None, networks[ORIGINAL])]
    for number, candidate in enumerate(made, 1):
        work.progress("compress: validate", number, len(made), candidate.label)
        rows.append(describe(work, candidate, networks[candidate.label]))
    milliseconds, missing = speed(work, networks)
    chosen, within = choose(rows, config.compression.max_loss)
    tested = _tested(rows, chosen, config.compression.test)
    found = verdicts(work, [candidate for candidate in made if candidate.label in tested])
    for row in rows:
        row["latency_ms"] = milliseconds[row["label"]]
        row["test"] = found.get(row["label"])
    _deliver(next(candidate.folder for candidate in made if candidate.label == chosen), work.folder)
    tree = {
        "schema_version": 1,
        "dataset": dataset.name,
        "threat_model": config.evaluation.threat_model.model_dump(mode="json"),
        "suite": config.evaluation.suite or "own list",
        "seed": config.seed,
        "chosen": chosen,
        "within_loss": within,
        "max_loss": config.compression.max_loss,
        "not_measured": missing,
        "networks": rows,
    }
    return tree, made


def choose(rows: list[dict[str, Any]], max_loss: float) -> tuple[str, bool]:
    """Label of the network with the fewest MACs within the allowed loss, True; else of the most robust one, False.

    The first row is the original. Baselines stand there for comparison and are not chosen.
    """
    least = rows[0]["validation"]["robust"] - max_loss
    own = [row for row in rows[1:] if row["baseline_of"] is None]
    within = [row for row in own if row["validation"]["robust"] >= least]
    if within:
        return str(min(within, key=lambda row: (row["macs"], row["params"]))["label"]), True
    return str(max(own, key=lambda row: (row["validation"]["robust"], -row["macs"]))["label"]), False


def _tested(rows: list[dict[str, Any]], chosen: str, which: str) -> set[str]:
    """The labels that meet the test set beside the original."""
    if which == "all":
        return {row["label"] for row in rows[1:]}
    # What it was made from too, back to the original: GDWS's before it was tuned, CSTAR's before that.
    made_from = {row["label"]: row["made_from"] for row in rows}
    shown, label = {chosen}, made_from[chosen]
    while label is not None:
        shown.add(label)
        label = made_from[label]
    return {row["label"] for row in rows[1:] if row["label"] in shown or row["baseline_of"] in shown}


EVALUATED = ("evaluation/config.yaml", "evaluation/evaluation.json")  # what an export tells of it
DELIVERED = ("config.yaml", "architecture.yaml", "model.json", "model.safetensors")


def _deliver(source: Path, folder: Path) -> None:
    """Copies the chosen model folder, and its evaluation, to `model`, so that it has one name."""
    target = folder / "model"
    target.mkdir(exist_ok=True)
    (target / "evaluation").mkdir(exist_ok=True)
    for name in (*DELIVERED, *EVALUATED):
        if (source / name).is_file():
            write_atomic(target / name, (source / name).read_bytes())


def _draw(tree: dict[str, Any], made: list[Candidate], folder: Path) -> list[str]:
    """Draws the figures; returns their files, as seen from the folder."""
    threat, rows = tree["threat_model"], tree["networks"]
    points = []
    for row in rows:
        timing = row["latency_ms"].get("onnxruntime", row["latency_ms"]["torch"])["1"]
        shared = {key: row[key] for key in ("label", "method", "macs", "params")}
        shared |= {"latency_ms": timing["median_ms"], "chosen": row["label"] == tree["chosen"]}
        found = row["validation"]
        low, high = wilson(round(found["robust"] * found["images"]), found["images"])
        points.append({**shared, "split": "validation", "low": low, "high": high, **_shares(found)})
        if row["test"]:
            low, high = row["test"]["robust"]["interval"]
            judged = {key: row["test"][key]["accuracy"] for key in ("clean", "robust")}
            points.append({**shared, "split": "test", "low": low, "high": high, **judged})
    about = (
        f"{tree['name']} on {tree['dataset']}, {threat['norm']} eps {threat['eps']:.4g}, seed {tree['seed']}"
    )
    first = rows[0]
    runtime = "ONNX Runtime" if "onnxruntime" in first["latency_ms"] else "torch"
    figures.plot_compression(
        points,
        folder / "figures" / "compression",
        latency=f"{runtime}, batch 1, one thread",
        caption=f"{about}; validation: {first['validation']['attack'].partition('(')[0]}, "
        f"{first['validation']['images']} images; test: {' + '.join(first['test']['robust']['attacks'])}, "
        f"{first['test']['robust']['images']} images; ring: chosen on validation",
    )
    drawn = ["figures/compression.png"]
    chosen = next(candidate for candidate in made if candidate.label == tree["chosen"])
    if (chosen.folder / LAYERS).is_file():
        report = read_json(chosen.folder / LAYERS)
        share = report["macs_after"] / report["macs_before"]
        caption = f"{about}; {chosen.label}: {share:.2f} of the multiply-adds of what it was made from"
        figures.plot_layers(report["layers"], folder / "figures" / "layers", caption=caption)
        drawn.append("figures/layers.png")
    return drawn


def _shares(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("clean", "robust")}

"""Measure networks of a compression: size, MACs, latency, accuracy on validation images, verdict on the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robust_nas.compression import Candidate, CompressionContext
from robust_nas.compression.context import ORIGINAL
from robust_nas.config import to_yaml_dict
from robust_nas.evaluation.finished import finished_evaluations
from robust_nas.records import read_json
from robust_nas.run_folder import write_json
from robust_nas.workflows.config import EvaluationConfig
from robust_nas.workflows.context import JobContext
from robust_nas.workflows.evaluate import evaluate_job, run_evaluation
from robust_nas.workflows.places import relative

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.attacks import Attack
    from robust_nas.data import Images


MEASURED = {"clean": float, "robust": float, "model_form?": str}


def describe(context: CompressionContext, candidate: Candidate | None, network: nn.Module) -> dict[str, Any]:
    """Return the row of a network (None: the original) without the test set; `validation` is measured once."""
    from robust_nas.layers.factorised import dense
    from robust_nas.nets.cost import measured_cost

    original = context.original
    folder = original.folder if candidate is None else candidate.folder
    cost = measured_cost(network, original.model.description.input_shape)
    attack = context.recipe.validation_attack
    label = ORIGINAL if candidate is None else candidate.label
    path = context.root / "validation" / f"{label}.json"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        network.to(context.device)
        attacked, form = network, {}
        if _same(whole := dense(network), network, context.validation):
            attacked = whole
        else:  # the key is there for such a network alone
            form = {"model_form": "as it is: its dense form gives other logits"}
        clean, robust = accuracies(network, attacked, context.validation, attack, context.seed)
        network.cpu()
        write_json(path, {"clean": clean, "robust": robust, **form})
    return {
        "label": label,
        "method": ORIGINAL if candidate is None else candidate.method,
        "made_from": None if candidate is None else candidate.made_from,
        "baseline_of": None if candidate is None else candidate.baseline_of,
        "folder": None if folder is None else relative(folder, context.root),
        "params": cost.params,
        "macs": cost.macs,
        "bytes": _size(network),
        "validation": {
            **read_json(path, MEASURED),
            "images": len(context.validation),
            "attack": repr(attack),
        },
        "test": None,
    }


def _same(whole: nn.Module, network: nn.Module, images: Images) -> bool:
    """Return whether the dense form of a network gives its logits for the first images."""
    import torch

    from robust_nas.attacks import attack_mode
    from robust_nas.attacks.folding import COMPARED, same_logits

    few = images.float(torch.arange(min(COMPARED, len(images))))
    with attack_mode(network), attack_mode(whole):
        return same_logits(whole, network, few)


def _size(network: nn.Module) -> int:
    """Return the bytes of the stored weights."""
    from safetensors.torch import save

    from robust_nas.nets import inference_state

    return len(save(inference_state(network), metadata={"format": "pt"}))


def accuracies(
    network: nn.Module, attacked: nn.Module, images: Images, attack: Attack, seed: int
) -> tuple[float, float]:
    """Return clean and robust accuracy (0..1) of a network, on images on its device.

    Gradients are taken on `attacked`, which computes the same; the network itself judges.
    """
    import torch

    from robust_nas.evaluation.accuracy import correctness

    generator = torch.Generator(images.pixels.device).manual_seed(seed + 1)
    return correctness(network, images, attack, generator, attacked=attacked).accuracies


def speed(context: CompressionContext, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Any], list[str]]:
    """Return milliseconds of every network, all in turn, measured once; and the reasons for what is not measured."""
    from robust_nas.export.latency import latencies

    path = context.root / "latency.json"
    shape = {"networks": {str: {str: object}}, "not_measured": [str]}
    found = read_json(path, shape) if path.is_file() else {}
    if set(found.get("networks", {})) != set(networks):
        context.progress("compress: latency", 0, 1)
        measured, missing = latencies(networks, context.original.model.description.input_shape)
        write_json(path, {"networks": measured, "not_measured": list(missing)})
        context.progress("compress: latency", 1, 1)
        found = read_json(path)
    return found["networks"], found["not_measured"]


def verdicts(
    context: CompressionContext, config: EvaluationConfig, shared: JobContext, tested: Sequence[Candidate]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the protocol's results on the test set, of the original and of the declared networks, by label.

    The second mapping is what the original's evaluation says of images and weights, `tested` and `warnings`.
    """
    trees = {ORIGINAL: _evaluate_original(context, config, shared)}
    for candidate in tested:
        folder = candidate.folder / "evaluation"
        trees[candidate.label] = run_evaluation(
            config,
            candidate.folder,
            folder,
            mode="resume" if folder.exists() else "new",
            progress=context.progress,
            context=shared,
            module=context.original.module,
            other_data=True,  # refused before, where they are not meant
        )
    results = {
        label: {"clean": tree["clean"], "robust": tree["robust"], "verdict": tree["verdict"]}
        for label, tree in trees.items()
    }
    said = trees[ORIGINAL]  # maybe of an earlier version, which said neither
    return results, {"tested": said.get("tested"), "warnings": said.get("warnings", [])}


def _evaluate_original(
    context: CompressionContext, config: EvaluationConfig, shared: JobContext
) -> dict[str, Any]:
    """Return the original's evaluation: an earlier one of the same protocol, weights and images, or a new one."""
    own, original = context.root / ORIGINAL, context.original
    mode: Any = "resume" if own.exists() else "new"
    if original.folder is None:
        return run_evaluation(
            config,
            original.spec,
            own,
            weights=original.weights,
            mode=mode,
            progress=context.progress,
            context=shared,
        )
    digest = original.model.digest
    wanted = without_paths(to_yaml_dict(evaluate_job(config, "", digest)))
    for found in finished_evaluations(original.folder, digest):
        checksum = found.environment.get("dataset_checksum")
        same = checksum is not None and shared.dataset.has_checksum(checksum)
        if same and without_paths(found.config) == wanted:
            return found.outcome
    return run_evaluation(
        config,
        original.folder,
        own,
        mode=mode,
        progress=context.progress,
        context=shared,
        other_data=True,  # refused before, where they are not meant
    )


def without_paths(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an evaluation without the places of model and images, known by digest and checksum.

    Nor has it the extensions that the protocol was reached by.
    """
    data = job.get("data")
    job = {key: value for key, value in job.items() if key != "extended"}
    return {**job, "model": "", "data": {**data, "path": None} if isinstance(data, Mapping) else data}

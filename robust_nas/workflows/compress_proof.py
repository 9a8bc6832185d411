"""What a compressed network is worth: size, MACs, latency, accuracy on validation images, verdict on the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robust_nas.config import to_yaml_dict
from robust_nas.evaluation.finished import finished_evaluations
from robust_nas.runs import read_json, write_json
from robust_nas.workflows.compress_work import ORIGINAL, Candidate, Work
from robust_nas.workflows.config import EvaluationConfig
from robust_nas.workflows.evaluate import evaluate_job, relative, run_evaluation

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.attacks import Attack
    from robust_nas.data import Images


def describe(work: Work, candidate: Candidate | None, network: nn.Module) -> dict[str, Any]:
    """What is known of a network (None: the original) without the test set; `validation` is measured once."""
    from robust_nas.layers.factorised import dense
    from robust_nas.nets.cost import measured_cost

    folder = work.source.folder if candidate is None else candidate.folder
    cost = measured_cost(network, work.material.dataset.shape)
    attack = work.config.training.validation_attack
    label = ORIGINAL if candidate is None else candidate.label
    path = work.folder / "validation" / f"{label}.json"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        device = work.material.device
        clean, robust = accuracies(
            network.to(device), dense(network), work.validation, attack, work.config.seed
        )
        network.cpu()
        write_json(path, {"clean": clean, "robust": robust})
    return {
        "label": label,
        "method": ORIGINAL if candidate is None else candidate.method,
        "made_from": None if candidate is None else candidate.made_from,
        "baseline_of": None if candidate is None else candidate.baseline_of,
        "folder": None if folder is None else relative(folder, work.folder),
        "params": cost.params,
        "macs": cost.macs,
        "bytes": _size(network),
        "validation": {**read_json(path), "images": len(work.validation), "attack": repr(attack)},
        "test": None,
    }


def _size(network: nn.Module) -> int:
    """Bytes of the weights as they are stored."""
    from safetensors.torch import save

    from robust_nas.nets import inference_state

    return len(save(inference_state(network), metadata={"format": "pt"}))


def accuracies(
    network: nn.Module, attacked: nn.Module, images: Images, attack: Attack, seed: int
) -> tuple[float, float]:
    """Clean and robust accuracy (0..1) of a network in eval mode, on images on its device.

    Gradients are taken on `attacked`, which computes the same; the network itself judges.
    """
    import torch

    generator = torch.Generator(images.pixels.device).manual_seed(seed + 1)
    network.eval()
    attacked.eval()
    clean = robust = 0
    for indices in torch.split(torch.arange(len(images)), 256):
        part = images.subset(indices)
        x = part.float().contiguous(memory_format=torch.channels_last)
        adversarial = attack(attacked, x, part.labels, generator)
        with torch.no_grad():
            right = network(x).argmax(1) == part.labels
            both = right & (network(adversarial).argmax(1) == part.labels)
        clean, robust = clean + int(right.sum()), robust + int(both.sum())
    return clean / len(images), robust / len(images)


def speed(work: Work, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Any], list[str]]:
    """Milliseconds of every network, all in turn, measured once; and what could not be measured, with reasons."""
    from robust_nas.export.latency import latencies

    path = work.folder / "latency.json"
    found = read_json(path) if path.is_file() else {}
    if set(found.get("networks", {})) != set(networks):
        work.progress("compress: latency", 0, 1)
        measured, missing = latencies(networks, work.material.dataset.shape)
        write_json(path, {"networks": measured, "not_measured": list(missing)})
        work.progress("compress: latency", 1, 1)
        found = read_json(path)
    return found["networks"], found["not_measured"]


def verdicts(work: Work, tested: Sequence[Candidate]) -> dict[str, Any]:
    """The protocol on the test set, of the original and of the networks that were declared for it, by label."""
    config = EvaluationConfig.of(work.config)
    trees = {ORIGINAL: _evaluate_original(work, config)}
    for candidate in tested:
        folder = candidate.folder / "evaluation"
        trees[candidate.label] = run_evaluation(
            config,
            candidate.folder,
            folder,
            mode="resume" if folder.exists() else "new",
            progress=work.progress,
            context=work.material,
            module=work.source.module,
        )
    return {
        label: {"clean": tree["clean"], "robust": tree["robust"], "verdict": tree["verdict"]}
        for label, tree in trees.items()
    }


def _evaluate_original(work: Work, config: EvaluationConfig) -> dict[str, Any]:
    """The original's evaluation: the one that it has, where it is of the same protocol, weights and images."""
    own, source = work.folder / ORIGINAL, work.source
    mode: Any = "resume" if own.exists() else "new"
    if source.folder is None:
        return run_evaluation(
            config, source.spec, own, weights=source.weights, mode=mode, progress=work.progress
        )
    digest = source.model.digest
    wanted = to_yaml_dict(evaluate_job(config, "", digest))
    for found in finished_evaluations(source.folder, digest):
        checksum = found.environment.get("dataset_checksum")
        if {**found.config, "model": ""} == wanted and checksum == work.material.dataset.checksum:
            return found.outcome
    return run_evaluation(
        config, source.folder, own, mode=mode, progress=work.progress, context=work.material
    )

"""The cascade beside the official standard AutoAttack: which verdicts differ, and what each costs. Prints Markdown.

    .venv/bin/python scripts/check_autoattack.py [--images 256] [--seed 0] [--folder results/check-autoattack]

1. A WRN-10-1, adversarially trained on scikit-learn's digits (Linf eps 0.15), on test images of that set.
2. The standard-trained CIFAR-10 ResNet-18 that ships inside `pyautoattack`, on the 20 CIFAR-10 images that ship inside
   `foolbox`, at 1/255.

Both networks are real, both run offline. One process, one thread, CPU time; cascade and AutoAttack get the same images.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import robust_nas
from robust_nas.evaluation import Evaluation

EPS = 0.15
OVERRIDES = [
    "name=check-autoattack",
    "training.epochs=30",
    f"training.loss.attack={{name: pgd, eps: {EPS}, steps: 5, keep: last}}",
    f"training.validation_attack={{name: pgd, eps: {EPS}, steps: 10}}",
    "training.validate_from=20",
    f"evaluation.threat_model.eps={EPS}",
]


@dataclass(frozen=True)
class Labelled:
    """Images and labels as `robust_nas.evaluate` takes them."""

    pixels: Tensor
    labels: Tensor


def robust_digits(folder: Path, seed: int) -> tuple[nn.Module, Labelled]:
    """The trained network (made once) and the test images of digits."""
    config = robust_nas.load_config("quickstart", [*OVERRIDES, f"seed={seed}"])
    architecture = robust_nas.load_architecture("wrn-10-1")
    model = robust_nas.train(config, architecture, folder / f"model-seed{seed}", mode="resume")
    test = robust_nas.load_dataset(config.data, seed=seed).test
    return robust_nas.load_model(model), Labelled(test.pixels, test.labels)


def cifar_resnet() -> tuple[nn.Module, Labelled]:
    """The network inside `pyautoattack`, and the images inside `foolbox`."""
    place = _package("pyautoattack") / "examples"
    found = importlib.util.spec_from_file_location("pyautoattack_resnet", place / "resnet.py")
    if found is None or found.loader is None:
        raise SystemExit(f"{place / 'resnet.py'}: is not there")
    source = importlib.util.module_from_spec(found)
    found.loader.exec_module(source)
    network = source.ResNet18()
    state = torch.load(place / "model_test.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    files = sorted((_package("foolbox") / "data").glob("cifar10_*.png"))
    pixels = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    labels = [int(file.stem.split("_")[2]) for file in files]
    return network.eval(), Labelled(torch.stack(pixels), torch.tensor(labels))


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is not installed; scripts/test.sh sets it up")
    return Path(found.origin).parent


def timed(
    model: nn.Module, data: Labelled, eps: float, suite: str, images: int, seed: int
) -> tuple[Evaluation, float]:
    """An evaluation and its CPU seconds, findings included (the official suite has none)."""
    began = time.process_time()
    found = robust_nas.evaluate(
        model,
        data,
        robust_nas.ThreatModel(eps=eps),
        suite,
        images=images,
        seed=seed,
        findings="none" if suite == "autoattack" else "budget",
    )
    return found, time.process_time() - began


def compare(title: str, model: nn.Module, data: Labelled, eps: float, images: int, seed: int) -> None:
    """Prints both evaluations and the examples on which they differ."""
    cascade, ours = timed(model, data, eps, "cascade", images, seed)
    official, theirs = timed(model, data, eps, "autoattack", images, seed)
    broken = [{index for row in found.rows for index in row.broken_indices} for found in (cascade, official)]
    print(f"\n{title}, Linf eps {eps:.5g}, {cascade.clean.images} images, seed {seed}\n")
    print("| | clean | robust | CPU s | of it findings | passes |")
    print("|---|---|---|---|---|---|")
    for name, found, seconds in (("cascade", cascade, ours), ("AutoAttack, official", official, theirs)):
        print(
            f"| {name} | {found.clean.correct} | {found.robust.correct} | {seconds:.1f} | "
            f"{found.findings_seconds:.1f} | {found.passes + found.findings_passes:,} |"
        )
    print(
        f"\nbroken by AutoAttack alone: {len(broken[1] - broken[0])}, "
        f"by the cascade alone: {len(broken[0] - broken[1])}; "
        f"time ratio {ours / theirs:.2f}; verdict of the cascade: {cascade.verdict.status}"
    )
    for reason in cascade.verdict.reasons:
        print(f"  {reason}")


def main() -> None:
    """Runs both comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("results/check-autoattack"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, data = robust_digits(options.folder, options.seed)
    compare("WRN-10-1 on digits", model, data, EPS, options.images, options.seed)
    model, data = cifar_resnet()
    compare("ResNet-18 on CIFAR-10", model, data, 1 / 255, 20, options.seed)


if __name__ == "__main__":
    main()

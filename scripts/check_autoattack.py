"""The cascade next to the official standard AutoAttack: which verdicts differ, and what each costs. Prints Markdown.

    .venv/bin/python scripts/check_autoattack.py digits [--images 256] [--seed 0]   # about five minutes
    .venv/bin/python scripts/check_autoattack.py cifar                              # about an hour

digits: two networks, adversarially trained on scikit-learn's digits (Linf eps 0.15), on test images of that set: two
convolutions, and a WRN-10-1. cifar: the standard-trained ResNet-18 that ships inside `pyautoattack`, on the 20 CIFAR-10
images that ship inside `foolbox`, at 1/255.

The networks are real, and all runs offline. One process, one thread, CPU time; both suites get the same images.
AutoAttack runs a second time with another seed where that is quick: it too finds other examples from start to start.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import robust_nas
from robust_nas.attacks import PGD
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


def digits(images: int, seed: int) -> tuple[Labelled, Labelled]:
    """Training images, and test images in a seeded order."""
    data = robust_nas.load_dataset(robust_nas.DataOptions(), seed=seed)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:images]
    test = data.test.subset(order)
    return Labelled(data.train.pixels, data.train.labels), Labelled(test.pixels, test.labels)


def two_convolutions(train: Labelled, seed: int) -> nn.Module:
    """32 and 64 channels, batch norm, trained for 25 epochs on PGD-5."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 10),
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, 25)
    attack = PGD(eps=EPS, steps=5, keep="last")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(25):
        for indices in torch.randperm(len(train.labels), generator=generator).split(128):  # type: ignore[no-untyped-call]
            x, y = train.pixels[indices].float() / 255, train.labels[indices]
            adversarial = attack(network, x, y, generator)
            loss = F.cross_entropy(network.train()(adversarial), y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
    return network.eval()


def wide_resnet(folder: Path, seed: int) -> nn.Module:
    """A WRN-10-1 by the quickstart's recipe with PGD-5 (made once)."""
    config = robust_nas.load_config("quickstart", [*OVERRIDES, f"seed={seed}"])
    architecture = robust_nas.load_architecture("wrn-10-1")
    model = robust_nas.train(config, architecture, folder / f"model-seed{seed}", mode="resume")
    return robust_nas.load_model(model)


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
    model: nn.Module, data: Labelled, eps: float, suite: str, seed: int
) -> tuple[Evaluation, float, float]:
    """An evaluation, its CPU seconds, and those of its attacks alone."""
    marks = []

    def mark(name: str, fraction: float) -> None:
        if name == "findings" and fraction == 0:
            marks.append(time.process_time())

    began = time.process_time()
    found = robust_nas.evaluate(
        model,
        data,
        robust_nas.ThreatModel(eps=eps),
        suite,
        seed=seed,
        findings="none" if suite == "autoattack" else "budget",
        progress=mark,
    )
    return found, time.process_time() - began, marks[0] - began


def compare(title: str, model: nn.Module, data: Labelled, eps: float, seed: int, *, again: bool) -> None:
    """Prints the evaluations and the examples on which they differ."""
    runs = {"cascade": timed(model, data, eps, "cascade", seed)}
    runs["AutoAttack, official"] = timed(model, data, eps, "autoattack", seed)
    if again:
        runs["AutoAttack, another seed"] = timed(model, data, eps, "autoattack", seed + 1)
    cascade = runs["cascade"][0]
    print(f"\n{title}, Linf eps {eps:.5g}, {cascade.clean.images} images, seed {seed}\n")
    print("| | clean | robust | CPU s | of it attacks | passes | time to AutoAttack's |")
    print("|---|---|---|---|---|---|---|")
    theirs = runs["AutoAttack, official"][1]
    for name, (found, seconds, attacks) in runs.items():
        print(
            f"| {name} | {found.clean.correct} | {found.robust.correct} | {seconds:.1f} | {attacks:.1f} | "
            f"{found.passes + found.findings_passes:,} | {seconds / theirs:.2f} |"
        )
    broken = {name: _broken(found) for name, (found, _, _) in runs.items()}
    official = broken.pop("AutoAttack, official")
    print()
    for name, indices in broken.items():
        print(
            f"{name}: {len(official - indices)} images broken by AutoAttack are right, "
            f"{len(indices - official)} are broken that AutoAttack left right."
        )
    print(f"Verdict of the cascade: {cascade.verdict.status}.")
    for reason in cascade.verdict.reasons:
        print(f"- {reason}")


def _broken(found: Evaluation) -> set[int]:
    return {index for row in found.rows for index in row.broken_indices}


def main() -> None:
    """Runs the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=["digits", "cifar"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("results/check-autoattack"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.which == "cifar":
        model, data = cifar_resnet()
        compare("ResNet-18 on CIFAR-10", model, data, 1 / 255, options.seed, again=False)
        return
    train, test = digits(options.images, options.seed)
    network = two_convolutions(train, options.seed)
    compare("Two convolutions on digits", network, test, EPS, options.seed, again=True)
    network = wide_resnet(options.folder, options.seed)
    compare("WRN-10-1 on digits", network, test, EPS, options.seed, again=True)


if __name__ == "__main__":
    main()

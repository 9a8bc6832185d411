"""PGD-10 next to torchattacks, foolbox and a bare loop: one process, one thread, in turn; prints a Markdown table.

    .venv/bin/python scripts/bench_attacks.py [--width 32] [--batch 64] [--rounds 5] [--device cuda]

ResNet-18 in its CIFAR shape with fresh weights, which cost the same as trained ones; Linf 8/255, step 2/255, from a
random start. The libraries give back the last iterate; ours is timed like that and with the best iterate.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.attacks import APGD, PGD
from robust_nas.timing import interleaved

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10


class Block(nn.Module):
    """The basic block of ResNet-18 (He et al., 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`."""
        return F.relu(self.body(x) + self.shortcut(x))


def resnet18(width: int) -> nn.Module:
    """Stem without pooling, four stages of two blocks, ten classes; width 64 is the usual one."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage in range(4):
        for block in range(2):
            c_out = width * 2**stage
            layers.append(Block(channels, c_out, 2 if stage and not block else 1))
            channels = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)).eval()


def bare(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The shortest loop that does the same: input gradients alone, last iterate."""
    x = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
        x = x.detach() + STEP * gradient.sign()
        x = x.clamp(images - EPS, images + EPS).clamp(0, 1)
    return x


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16; a CPU without such instructions emulates it, many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = resnet18(options.width).to(device)
    images = torch.rand(options.batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch,), device=device)

    import foolbox
    import torchattacks

    def ours(**changes: object) -> PGD:
        return PGD(eps=EPS, step_size=STEP, steps=STEPS, **changes)

    reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
    linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=True)

    def foolbox_run() -> None:
        for parameter in model.parameters():
            parameter.grad = None  # foolbox fills them
        linf(wrapped, images, labels, epsilons=EPS)

    alternatives = {
        "torchattacks PGD": lambda: reference(images, labels),
        "foolbox LinfPGD": foolbox_run,
        "a bare loop": lambda: bare(model, images, labels),
        "ours, as it is, last iterate": lambda: ours(keep="last", fold=False)(model, images, labels),
        "ours, folded, last iterate": lambda: ours(keep="last")(model, images, labels),
        "ours, folded, best iterate": lambda: ours()(model, images, labels),
        "ours, APGD-CE of 10 steps": lambda: APGD(eps=EPS, steps=STEPS)(model, images, labels),
    }

    if has_bf16(device):
        alternatives |= {
            "ours, folded, bf16, last iterate": lambda: ours(keep="last", precision="bf16")(
                model, images, labels
            ),
            "ours, folded, bf16, best iterate": lambda: ours(precision="bf16")(model, images, labels),
        }

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    timings = interleaved(alternatives, options.rounds, clock=clock)
    against = timings["torchattacks PGD"]
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, one thread"
    )
    print(
        f"PGD-{STEPS}, batch {options.batch}, ResNet-18 shape, width {options.width}; {where}; "
        f"torch {torch.__version__}, torchattacks {version('torchattacks')}, foolbox {version('foolbox')}; "
        f"{options.rounds} rounds in turn\n"
    )
    print("| variant | median s | minimum s | ratio to torchattacks (median of rounds) |")
    print("|---|---|---|---|")
    for name, timing in timings.items():
        print(f"| {name} | {timing.median:.2f} | {timing.minimum:.2f} | {timing.ratio(against):.2f} |")
    if not has_bf16(device):
        print("\nbf16 was not timed: this CPU has no instructions for it.")


if __name__ == "__main__":
    main()

"""Attacks next to torchattacks, foolbox and a bare loop: one process, one thread, in turn; prints Markdown tables.

    .venv/bin/python scripts/bench_attacks.py [--parts libraries compiled] [--batch 64] [--rounds 5] [--device cuda]

Fresh weights, which cost the same as trained ones; Linf 8/255, step 2/255, from a random start.

    libraries   PGD-10 on ResNet-18 in its CIFAR shape of --width 32. The libraries give back the last iterate; ours is
                timed like that and with the best iterate.
    compiled    PGD-20 with the last iterate on WRN-10-2 and on ARNAS of --cells 8 and --channels 16, 3x32x32. The
                compiler starts with an empty cache. Its seconds are wall time, for it runs processes of its own.
                Break-even: the input gradients after which compiling has saved, against the folded copy, what it took.

Ratios are medians over the rounds, with the smallest and the largest round.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robust_nas
from robust_nas.attacks import APGD, PGD
from robust_nas.nets import build_network
from robust_nas.spaces import Architecture
from robust_nas.timing import Timing, interleaved

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
LONG = 20  # steps of the compiled attack


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


def ours(**changes: object) -> PGD:
    """Our PGD with these options."""
    return PGD(**{"eps": EPS, "step_size": STEP, "steps": STEPS, **changes})


def timed(
    alternatives: Mapping[str, Callable[[], object]], options: argparse.Namespace, device: torch.device
) -> dict[str, Timing]:
    """Return the timings of all alternatives, in turn."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    return interleaved(alternatives, options.rounds, clock=clock)


def rows(timings: Mapping[str, Timing], more: Mapping[str, str] | None = None) -> None:
    """Print a row an alternative, with its ratio to torchattacks in every round."""
    against = next(iter(timings.values()))
    for name, timing in timings.items():
        ratios = [b / a for a, b in zip(timing.seconds, against.seconds, strict=True)]
        seconds = f"{timing.median:.2f} ({timing.minimum:.2f} to {max(timing.seconds):.2f})"
        faster = f"{1 / timing.ratio(against):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {seconds} | {faster} |{f' {more.get(name, str())} |' if more else ''}")


def where(device: torch.device) -> str:
    """Return the processor, and the versions."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, one thread"
    )
    return f"{name}; torch {torch.__version__}, torchattacks {version('torchattacks')}"


def libraries(options: argparse.Namespace, device: torch.device) -> None:
    """Time PGD-10 of the libraries and ours."""
    import foolbox
    import torchattacks

    model = resnet18(options.width).to(device)
    images = torch.rand(options.batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch,), device=device)
    reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
    linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=True)

    def foolbox_run() -> None:
        for parameter in model.parameters():
            parameter.grad = None  # foolbox fills them
        linf(wrapped, images, labels, epsilons=EPS)

    alternatives: dict[str, Callable[[], object]] = {
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
    timings = timed(alternatives, options, device)
    print(
        f"\nPGD-{STEPS}, batch {options.batch}, ResNet-18 shape, width {options.width}; {where(device)}, "
        f"foolbox {version('foolbox')}; {options.rounds} rounds in turn\n"
    )
    print("| variant | s: median (minimum to maximum) | times as fast as torchattacks |\n|---|---|---|")
    rows(timings)


def compiled(options: argparse.Namespace, device: torch.device) -> None:
    """Time PGD-20 of torchattacks, and ours folded and compiled, on two networks."""
    arnas: robust_nas.CellArchitecture = robust_nas.load_architecture("arnas")  # type: ignore[assignment]
    for architecture in (
        robust_nas.load_architecture("wrn-10-2"),
        arnas.resized(options.cells, options.channels),
    ):
        _compiled_on(architecture, options, device)


def _compiled_on(architecture: Architecture, options: argparse.Namespace, device: torch.device) -> None:
    import torchattacks

    model = build_network(architecture, input_shape=(3, 32, 32), seed=0).to(device).eval()
    images = torch.rand(options.batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch,), device=device)
    reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=LONG, random_start=True)
    attacks = {"ours, folded": ours(steps=LONG, keep="last")}
    attacks["ours, compiled"] = ours(steps=LONG, keep="last", compile="always")
    if has_bf16(device):
        attacks["ours, folded, bf16"] = ours(steps=LONG, keep="last", precision="bf16")
        attacks["ours, compiled, bf16"] = ours(steps=LONG, keep="last", precision="bf16", compile="always")
    took = {}
    for name, attack in attacks.items():
        if attack.compile == "always":
            began = time.perf_counter()
            attack.model_copy(update={"steps": 1})(model, images, labels)
            took[name] = time.perf_counter() - began
    timings = timed(
        {
            "torchattacks PGD": lambda: reference(images, labels),
            **{
                name: lambda attack=attack: attack(model, images, labels)  # type: ignore[misc]
                for name, attack in attacks.items()
            },
        },
        options,
        device,
    )
    more = dict.fromkeys(timings, " |")
    for name, seconds in took.items():
        slower = timings[name.replace("compiled", "folded")].median
        saved = (slower - timings[name].median) / LONG
        even = f"{seconds / saved:,.0f} gradients" if saved > 0 else "never"
        more[name] = f"{seconds:.1f} | {even}"
    print(
        f"\nPGD-{LONG}, last iterate, batch {options.batch}, {architecture.name}, 3x32x32; {where(device)}; "
        f"{options.rounds} rounds in turn\n"
    )
    print(
        "| variant | s: median (minimum to maximum) | times as fast as torchattacks | compiling, s | break-even |"
    )
    print("|---|---|---|---|---|")
    rows(timings, more)


PARTS = {"libraries": libraries, "compiled": compiled}


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for part in options.parts:
            PARTS[part](options, device)
    if not has_bf16(device):
        print("\nbf16 was not timed: this processor has no instructions for it.")


if __name__ == "__main__":
    main()

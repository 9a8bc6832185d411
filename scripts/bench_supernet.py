"""The supernet fused, plain and as NNI ships it: one process, one thread, in turn; Markdown, CSV and a figure.

    .venv/bin/python scripts/bench_supernet.py [--quick] [--device cuda] [--parts steps memory grid] [--without NNI]

Alternatives, all over the space `dsara` with fresh weights, which cost the same as trained ones:

    plain              channels-last memory order, attacks on the network as it is: the ratio's 1
    plain, folded      the same, attacks on its torch.fx copy with batch norms folded
    plain, NCHW
    fused              `supernet.execution: fused`
    fused, bf16        the same with `search.precision: bf16`
    NNI                the supernet of NNI's DARTS strategy as it ships (NCHW); it computes all gradients in a step

Work: the input gradient in eval mode; forward and backward with all gradients in training mode; the first-order search
steps of DSARA's stage 2 with FGSM and with PGD-7 (an attack on both halves, two alpha gradients, one weight step), and
the attack alone. NNI's strategy has one alpha gradient on adversarial images and one weight step, which is less work.
Seconds are CPU time of the process, on a GPU wall time of finished work. Peak memory is that of one process for one
alternative, beyond what it held before: on a CPU the resident set, on a GPU torch's allocations.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas import environment
from robust_nas.attacks import FGSM, PGD
from robust_nas.nets import Supernet, channels_last
from robust_nas.search import DSARA, Batch, OneShotSearch
from robust_nas.spaces import load_space
from robust_nas.timing import Timing, interleaved, peak_resident

EPS = 8 / 255
ATTACKS = {"FGSM": FGSM(eps=EPS), "PGD-7": PGD(eps=EPS, step_size=2 / 255, steps=7, keep="last")}
BASE = "plain"
ALTERNATIVES = (BASE, "plain, folded", "plain, NCHW", "fused", "fused, bf16", "NNI")


class Size(NamedTuple):
    """One measured size."""

    channels: int
    cells: int
    batch: int


class Bench:
    """One alternative at one size, and its work."""

    def __init__(self, name: str, size: Size, device: torch.device) -> None:
        self.name, self.device = name, device
        self.channels_last = name not in ("plain, NCHW", "NNI")
        self.bf16 = name == "fused, bf16"
        space = load_space("dsara")
        if name == "NNI":
            from robust_nas.integrations.nni import architecture_parameters, darts_supernet

            self.net = darts_supernet(space, channels=size.channels, cells=size.cells).to(device)
            self.alphas = list(architecture_parameters(self.net).values())
        else:
            supernet = Supernet(
                space,
                channels=size.channels,
                cells=size.cells,
                execution="fused" if name.startswith("fused") else "plain",
            ).to(device)
            self.net = channels_last(supernet) if self.channels_last else supernet
            self.alphas = list(supernet.alphas.values())
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            (
                self.image(size.batch, generator),
                torch.randint(10, (size.batch,), generator=generator).to(device),
            )
            for _ in range(2)
        ]
        self.fold = name == "plain, folded" or name.startswith("fused")

    def image(self, batch: int, generator: torch.Generator) -> Tensor:
        """Images as the search hands them on."""
        x = torch.rand(batch, 3, 32, 32, generator=generator).to(self.device)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def input_gradient(self) -> Callable[[], object]:
        """In eval mode with frozen weights; a folded copy is made beforehand, as for the steps of one attack."""
        from robust_nas.attacks.folding import folded

        self.net.eval().requires_grad_(False)
        images, labels = self.batches[0]
        net = (folded(self.net, images).network if self.fold else None) or self.net

        def call() -> Tensor:
            x = images.detach().requires_grad_()
            return torch.autograd.grad(self.loss(net, x, labels), x)[0]

        return call

    def all_gradients(self) -> Callable[[], object]:
        """Forward and backward in training mode, weights and alphas."""
        self.net.train().requires_grad_(True)
        images, labels = self.batches[0]
        parameters = list(self.net.parameters())
        return lambda: torch.autograd.grad(self.loss(self.net, images, labels), parameters)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy, the forward pass in the alternative's precision."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = net(images)
        return F.cross_entropy(logits.float(), labels)

    def search_step(self, attack: str) -> Callable[[], object]:
        """One step of the search, or its attack alone."""
        name, alone = attack.removesuffix(" attack"), attack.endswith("attack")
        self.net.requires_grad_(True)
        option = ATTACKS[name].model_copy(update={"fold": self.name == "plain, folded"})
        generator = torch.Generator(self.device).manual_seed(0)
        if self.name == "NNI":
            return self._nni_step(option, generator, alone)
        precision = "bf16" if self.bf16 else "float32"
        strategy = DSARA(attack=option, stage1_epochs=0, precision=precision)  # stage 2
        search = OneShotSearch(strategy, self.net, load_space("dsara"))
        both, labels = (torch.cat(tensors) for tensors in zip(*self.batches, strict=True))

        def call() -> None:
            search.mark_changed()
            attacked = search.attack(both, labels, generator).chunk(2)
            if alone:
                return
            drawn = [
                Batch(x, adversarial, y) for (x, y), adversarial in zip(self.batches, attacked, strict=True)
            ]
            search.alpha_step(strategy.alpha_gradient(search, drawn[1], drawn[0]).gradient)
            search.weight_step(drawn[0])

        return call

    def _nni_step(self, attack: Any, generator: torch.Generator, alone: bool) -> Callable[[], object]:
        own = {id(alpha) for alpha in self.alphas}
        weights = [weight for weight in self.net.parameters() if id(weight) not in own]
        optimisers = (
            torch.optim.Adam(self.alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
            torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4),
        )

        def call() -> None:
            for optimiser, (x, y) in zip(optimisers, self.batches, strict=True):
                x = attack(self.net, x, y, generator)
                if alone:
                    continue
                optimiser.zero_grad()
                F.cross_entropy(self.net.train()(x), y).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(weights, 5.0)
                optimiser.step()

        return call

    def work(self, name: str) -> Callable[[], object]:
        """By the name in the table."""
        if name == "input gradient":
            return self.input_gradient()
        return (
            self.all_gradients() if name == "all gradients" else self.search_step(name.removesuffix(" step"))
        )


def measure(
    names: list[str], size: Size, works: list[str], rounds: int, device: torch.device
) -> dict[tuple[str, str], Timing]:
    """Timings by work and alternative."""
    found = {}
    for work in works:
        calls = {name: Bench(name, size, device).work(work) for name in names}
        clock = time.process_time if device.type == "cpu" else finished(device)
        for name, timing in interleaved(calls, rounds, clock=clock).items():
            found[work, name] = timing
    return found


def finished(device: torch.device) -> Callable[[], float]:
    """Wall time after all that was launched has run."""

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def peak_memory(name: str, size: Size, work: str, device: str) -> float:
    """MB of one call beyond what the process held before, measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, size, work, device))


def _peak(name: str, size: Size, work: str, device: str) -> float:
    torch.set_num_threads(1)
    where = torch.device(device)
    Bench(name, size._replace(batch=2), where).work(work)()  # what the first call alone allocates
    call = Bench(name, size, where).work(work)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        before = torch.cuda.memory_allocated(where)
        call()
        return (torch.cuda.max_memory_allocated(where) - before) / 2**20
    return peak_resident(call)


def peak_flops(device: torch.device) -> float:
    """GFLOP/s of a large float32 matrix product."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.rand(side, side, device=device)
    clock = time.process_time if device.type == "cpu" else finished(device)
    return 2 * side**3 / interleaved({"mm": lambda: a @ a}, 5, clock=clock)["mm"].minimum / 1e9


def gigaflops(size: Size, device: torch.device) -> float:
    """GFLOP of an input gradient as `torch.utils.flop_counter` counts them on the plain supernet."""
    from torch.utils.flop_counter import FlopCounterMode

    bench = Bench("plain, NCHW", size, device)
    images, labels = bench.batches[0]
    net = bench.net.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(images.requires_grad_()), labels).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def header(columns: list[str]) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def line(work: str, found: dict[tuple[str, str], Timing], names: list[str]) -> str:
    """Medians, and how many times fused is faster: the median over the rounds, the least and the most of them."""
    fused = found[work, "fused"]

    def cell(timing: Timing) -> str:
        by_round = [theirs / ours for theirs, ours in zip(timing.seconds, fused.seconds, strict=True)]
        spread = f"{min(by_round):.2f} to {max(by_round):.2f}"
        return f"{timing.median:.3f} s, {timing.ratio(fused):.2f} ({spread})"

    return f"| {work} | " + " | ".join(cell(found[work, name]) for name in names) + " |"


def draw(rows: list[dict[str, Any]], base: Size, path: Path, caption: str) -> None:
    """The input gradient's cost against channels, cells and batch, the other two as in the first size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 3, sharey=True), Size._fields, strict=True):
        others = [field for field in Size._fields if field != key]
        chosen = [row for row in rows if all(row[field] == getattr(base, field) for field in others)]
        for marker, name in zip("osv^D", dict.fromkeys(row["alternative"] for row in rows), strict=False):
            points = sorted((row[key], row["seconds"]) for row in chosen if row["alternative"] == name)
            axes.plot(*zip(*points, strict=True), marker=marker, label=name)
        axes.set(xlabel=key, xscale="log", yscale="log")
        axes.set_xticks(
            sorted({row[key] for row in chosen}), sorted({str(row[key]) for row in chosen}, key=int)
        )
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("seconds per input gradient")
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(caption, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints, and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small size and the cheap work alone")
    parser.add_argument("--parts", nargs="+", default=["steps", "memory", "grid"], help="what to measure")
    parser.add_argument("--without", nargs="+", default=[], help="alternatives to leave out, such as NNI")
    parser.add_argument("--out", type=Path, default=Path("results/bench-supernet"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    cuda = device.type == "cuda"
    base = Size(16, 8, 128 if cuda else 16)
    if arguments.quick:
        base = Size(4, 5, 8)
    grid = [base]
    if not arguments.quick:
        grid += [base._replace(channels=c) for c in ((32, 64) if cuda else (8, 24, 32))]
        grid += [base._replace(cells=n) for n in ((14, 20) if cuda else (5, 6))]
        grid += [base._replace(batch=b) for b in ((64, 256, 512) if cuda else (8, 32))]
    names = [name for name in ALTERNATIVES if name not in arguments.without]
    works = ["input gradient", "all gradients", "FGSM step", "PGD-7 attack", "PGD-7 step"]
    where = torch.cuda.get_device_name(device) if cuda else f"one thread of {environment.processor()}"
    peak = peak_flops(device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [f"torch {torch.__version__}, {where}, {peak:.0f} GFLOP/s in a matrix product", ""]

    def say(*more: str) -> None:
        """Keeps what is known by now."""
        lines.extend(more)
        (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
        print(*more, sep="\n", flush=True)

    title = f"channels {base.channels}, cells {base.cells}, batch {base.batch}:"
    if "steps" in arguments.parts:
        say(title, "", *header(["work", *names]))
        for work in works:
            say(line(work, measure(names, base, [work], arguments.rounds, device), names))
    if "memory" in arguments.parts:
        say("", "Peak memory, MB; " + title, "", *header(["work", *names]))
        for work in works[:2]:
            found = [peak_memory(name, base, work, arguments.device) for name in names]
            say(f"| {work} | " + " | ".join(f"{megabytes:.0f}" for megabytes in found) + " |")
    if "grid" in arguments.parts:
        say("", "Input gradient, ms and share of that peak:", "", *header([*Size._fields, *names]))
        rows: list[dict[str, Any]] = []
        for size in grid:
            timings = measure(names, size, works[:1], arguments.rounds, device)
            flops = gigaflops(size, device)
            part = [
                {
                    **size._asdict(),
                    "alternative": name,
                    "seconds": timings[works[0], name].median,
                    "share_of_peak": flops / timings[works[0], name].median / peak,
                }
                for name in names
            ]
            rows += part
            cells = [f"{1000 * row['seconds']:.0f}, {100 * row['share_of_peak']:.0f} %" for row in part]
            say("| " + " | ".join([*map(str, size), *cells]) + " |")
            with (arguments.out / "cost.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        caption = f"Eval-mode input gradient of the DSARA supernet, median of {arguments.rounds}; {where}"
        draw(rows, base, arguments.out / "cost.png", caption)


if __name__ == "__main__":
    main()

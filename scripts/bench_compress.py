"""Compressed convolutions next to dense ones: one process, one thread, in turn; prints Markdown tables.

    .venv/bin/python scripts/bench_compress.py [--width 64] [--batches 1 16] [--rounds 7] [--multiples 1 1.5 2 3]

ResNet-18 in its CIFAR shape with fresh weights, which cost the same as trained ones; every 3x3 convolution but the
first in GDWS form with G = m C kernels, chosen by MEGO. In torch: ours (batch norms folded, channels last) and the
graph of the published code, written from its description: indexing by a list of channels, a depthwise convolution of
G groups, a 1x1 convolution, batch norms as they are (and folded, for the part that is not folding). ONNX Runtime
executes our export. Then: alphas in batches next to the loop over images and classes, and the time of the compression.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from bench_attacks import resnet18
from torch import Tensor, nn

import robust_nas
from robust_nas.compression.alpha import estimate_alpha
from robust_nas.compression.folding import fold_batch_norms
from robust_nas.compression.gdws_layer import factorize, gdws_layer, mego
from robust_nas.compression.gdws_network import compress_gdws, eligible
from robust_nas.export.onnx import OnnxModel, onnx_bytes
from robust_nas.layers.factorised import replace_module
from robust_nas.nets import channels_last
from robust_nas.nets.cost import measured_cost
from robust_nas.timing import Timing, interleaved

SHAPE = (3, 32, 32)


class Repeated(nn.Module):
    """The channels that a list names."""

    def __init__(self, index: list[int]) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, G, H, W]`."""
        return x[:, self.index]


def published(convolution: nn.Conv2d, g: Tensor) -> nn.Module:
    """The layer as the published code builds it."""
    depthwise, pointwise = factorize(convolution.weight, g)
    index = [channel for channel, kernels in enumerate(g.tolist()) for _ in range(kernels)]
    given: Any = convolution  # torch types its sizes as tuples of any length, and takes pairs
    first = nn.Conv2d(
        len(index),
        len(index),
        given.kernel_size,
        given.stride,
        given.padding,
        groups=len(index),
        bias=False,
    )
    second = nn.Conv2d(len(index), convolution.out_channels, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(depthwise[:, None])
        second.weight.copy_(pointwise[:, :, None, None])
    return nn.Sequential(Repeated(index), first, second)


def replaced(
    network: nn.Module, multiple: float, layer: Callable[[nn.Conv2d, Tensor], nn.Module]
) -> nn.Module:
    """A copy with `multiple` x C kernels in every convolution that GDWS takes."""
    own = copy.deepcopy(network)
    for site in eligible(own, SHAPE)[0]:
        if isinstance(site.module, nn.Conv2d):
            g = mego(site.module.weight, max_kernels=round(multiple * site.module.in_channels))
            replace_module(own, site.module, layer(site.module, g))
    return own.eval()


def eager(network: nn.Module, x: Tensor, memory: torch.memory_format) -> Callable[[], object]:
    """A call in torch."""
    own = channels_last(network) if memory == torch.channels_last else network

    def run() -> object:
        with torch.inference_mode():
            return own(x.contiguous(memory_format=memory))

    return run


def milliseconds(timing: Timing) -> str:
    """Median and minimum."""
    return f"{1e3 * timing.median:.2f} ({1e3 * timing.minimum:.2f})"


def networks_table(width: int, batch: int, rounds: int, multiples: list[float]) -> None:
    """The networks as a whole."""
    network = resnet18(width)
    calls: dict[str, Callable[[], object]] = {}
    x = torch.rand(batch, *SHAPE)
    dense = fold_batch_norms(network, x)[0].eval()
    macs = {"dense": measured_cost(dense, SHAPE).macs}
    calls["dense torch"] = eager(channels_last(copy.deepcopy(dense)), x, torch.channels_last)
    graph = OnnxModel(onnx_bytes(dense, SHAPE))
    calls["dense ort"] = lambda graph=graph: graph(x)  # type: ignore[misc]
    for multiple in multiples:
        ours = fold_batch_norms(replaced(network, multiple, gdws_layer), x)[0].eval()
        theirs = replaced(network, multiple, published)
        macs[f"{multiple:g}"] = measured_cost(ours, SHAPE).macs
        folded = fold_batch_norms(theirs, x)[0].eval()
        calls[f"{multiple:g} published"] = eager(theirs, x, torch.contiguous_format)
        calls[f"{multiple:g} folded"] = eager(folded, x, torch.contiguous_format)
        graph = OnnxModel(onnx_bytes(ours, SHAPE))
        calls[f"{multiple:g} ort"] = lambda graph=graph: graph(x)  # type: ignore[misc]
        calls[f"{multiple:g} torch"] = eager(channels_last(ours), x, torch.channels_last)
    repeats = max(1, round(8 / batch))

    def several(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                call()

        return run

    found = interleaved({name: several(call) for name, call in calls.items()}, rounds, warmup=2)
    timings = {name: Timing(tuple(s / repeats for s in t.seconds)) for name, t in found.items()}
    print(
        f"\nBatch {batch}: median (minimum) of {rounds} rounds in turn, ms; ratios are medians over the rounds\n"
    )
    print(
        "| form | MACs | published graph | the same, folded | ours, torch | ours, ONNX Runtime "
        "| torch: published / ours | torch: dense / ours | ONNX Runtime: dense / ours |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| dense | {macs['dense'] / 1e6:.0f} M | | | {milliseconds(timings['dense torch'])} "
        f"| {milliseconds(timings['dense ort'])} | | 1 | 1 |"
    )
    for multiple in multiples:
        own = {kind: timings[f"{multiple:g} {kind}"] for kind in ("published", "folded", "torch", "ort")}
        print(
            f"| G = {multiple:g} C | {macs[f'{multiple:g}'] / 1e6:.0f} M "
            f"| {milliseconds(own['published'])} | {milliseconds(own['folded'])} | {milliseconds(own['torch'])} "
            f"| {milliseconds(own['ort'])} | {own['published'].ratio(own['torch']):.2f} "
            f"| {timings['dense torch'].ratio(own['torch']):.2f} | {timings['dense ort'].ratio(own['ort']):.2f} |"
        )


def alpha_loop(network: nn.Module, names: list[str], x: Tensor) -> None:
    """Alphas as the published code takes them: image by image, class by class."""
    modules = dict(network.named_modules())
    weights = [modules[name].weight for name in names]
    sums = [torch.zeros(weight.shape[1]) for weight in weights]
    for image in x:
        logits = network(image[None])[0]
        said = int(logits.argmax())
        for other in range(len(logits)):
            if other != said:
                margin = logits[said] - logits[other]
                grads = torch.autograd.grad(margin, weights, retain_graph=True)
                for total, grad in zip(sums, grads, strict=True):
                    total += grad.square().sum((0, 2, 3)) / (2 * float(margin.detach()) ** 2)


def alphas_table(rounds: int) -> None:
    """Batched alphas next to the loop, per image."""
    wide = robust_nas.load_architecture("wrn-10-1")
    networks = {
        "WRN-10-1, 1x8x8": (robust_nas.build_network(wide, input_shape=(1, 8, 8)).eval(), (1, 8, 8), 8),
        "WRN-10-1, 1x28x28": (robust_nas.build_network(wide, input_shape=(1, 28, 28)).eval(), (1, 28, 28), 4),
        "ResNet-18, width 16, 3x32x32": (resnet18(16), SHAPE, 4),
        "ResNet-18, width 64, 3x32x32": (resnet18(64), SHAPE, 1),
    }
    print("\nAlphas, ms an image: batches of 128 (16 at width 64) next to the loop over images and classes\n")
    print("| network | loop | batches | loop / batches | one sketch | loop / sketch |")
    print("|---|---|---|---|---|---|")
    for name, (network, shape, few) in networks.items():
        names = [layer.name for layer in eligible(network, shape)[0]]
        batch = 16 if "64," in name else 128
        x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
        found = interleaved(
            {
                "loop": lambda n=network, k=names, x=x[:few]: alpha_loop(n, k, x),  # type: ignore[misc]
                "batches": lambda n=network, k=names, x=x, b=batch: estimate_alpha(n, k, x, batch_size=b),  # type: ignore[misc]
                "sketch": lambda n=network, k=names, x=x, b=batch: estimate_alpha(  # type: ignore[misc]
                    n, k, x, batch_size=b, sketches=1
                ),
            },
            rounds,
        )
        loop = [1e3 * s / few for s in found["loop"].seconds]
        ours = [1e3 * s / batch for s in found["batches"].seconds]
        sketch = [1e3 * s / batch for s in found["sketch"].seconds]
        ratios = [statistics.median(a / b for a, b in zip(loop, own, strict=True)) for own in (ours, sketch)]
        print(
            f"| {name} | {statistics.median(loop):.2f} | {statistics.median(ours):.2f} | {ratios[0]:.1f} "
            f"| {statistics.median(sketch):.2f} | {ratios[1]:.1f} |"
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--multiples", type=float, nargs="+", default=[1, 1.5, 2, 3])
    parser.add_argument("--without-alphas", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"ResNet-18 shape, width {given.width}, 3x32x32; {platform.processor() or platform.machine()} CPU, one thread; "
        f"torch {torch.__version__}, onnxruntime {version('onnxruntime')}"
    )
    for batch in given.batches:
        networks_table(given.width, batch, given.rounds, given.multiples)
    if not given.without_alphas:
        alphas_table(3)
    network = resnet18(given.width)
    began = time.process_time()
    found = compress_gdws(network, SHAPE, macs=0.5)
    print(
        f"\nGDWS of the whole network without alphas, global allocation, {found.share:.2f} of the MACs: "
        f"{time.process_time() - began:.2f} s of CPU"
    )


if __name__ == "__main__":
    main()

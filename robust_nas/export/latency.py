"""Milliseconds of a call as somebody who deploys it would meet them: one thread, batch norms folded, all in turn.

torch runs a folded copy in channels-last memory order; the exporter folds the graph for ONNX Runtime. CPU time of this
process: others on the machine take part of the cache, but not of the figure. Networks are timed in turn, round by
round: ratios hold where milliseconds do not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.compression.folding import fold_batch_norms, random_images
from robust_nas.errors import ConfigError, RunError
from robust_nas.export.onnx import OnnxModel, onnx_bytes
from robust_nas.nets import channels_last
from robust_nas.timing import interleaved

ROUNDS = 7
SECONDS = 0.02  # of a round, at least
RUNTIMES = ("torch", "onnxruntime")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Latencies = dict[str, dict[str, dict[str, dict[str, float]]]]


def latencies(
    networks: Mapping[str, nn.Module],
    input_shape: tuple[int, int, int],
    *,
    batches: Sequence[int] = (1, 16),
    rounds: int = ROUNDS,
) -> tuple[Latencies, list[str]]:
    """Return `[network][runtime][batch]` to `median_ms` and `min_ms` of a call, and the gaps with reasons.

    Runtimes are `torch` and `onnxruntime`; one that is not there, or cannot take one of the networks, is left out for
    all of them. Networks are on the CPU, images of `input_shape` = (C, H, W).
    """
    missing: list[str] = []
    calls: dict[tuple[str, str], Callable[[Tensor], Any]] = {
        (name, "torch"): _torch(network, input_shape) for name, network in networks.items()
    }
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        missing.append(f"ONNX Runtime: {', '.join(absent)} not installed (pip install 'robust-nas[export]')")
    else:
        try:
            calls |= {
                (name, "onnxruntime"): OnnxModel(onnx_bytes(network, input_shape))
                for name, network in networks.items()
            }
        except (
            RunError,
            ConfigError,
        ) as error:  # the network, or a package that is there and does not import
            missing.append(f"ONNX Runtime: {error}")
    found: Latencies = {name: {} for name in networks}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch in batches:
            x = torch.rand(batch, *input_shape, generator=torch.Generator().manual_seed(0))
            for runtime in RUNTIMES:
                own = {name: call for (name, kind), call in calls.items() if kind == runtime}
                for name, timing in _timed(own, x, rounds).items():
                    found[name].setdefault(runtime, {})[str(batch)] = timing
    finally:
        torch.set_num_threads(threads)
    return found, missing


def _torch(network: nn.Module, input_shape: tuple[int, int, int]) -> Callable[[Tensor], Any]:
    """Return a call of the channels-last copy, folded where that gives the same logits."""
    own = channels_last(fold_batch_norms(network, random_images(network, input_shape))[0].cpu().eval())

    def run(x: Tensor) -> Any:
        with torch.inference_mode():
            return own(x.contiguous(memory_format=torch.channels_last))

    return run


def _timed(
    calls: Mapping[str, Callable[[Tensor], Any]], x: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    """Return milliseconds a call of each, in turn; each round is as many calls as fill `SECONDS`."""
    once = interleaved({name: lambda call=call: call(x) for name, call in calls.items()}, rounds=2)  # type: ignore[misc]
    repeats = {name: max(1, round(SECONDS / max(timing.minimum, 1e-6))) for name, timing in once.items()}

    def many(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats[name]):
                calls[name](x)

        return run

    timings = interleaved({name: many(name) for name in calls}, rounds=rounds)
    return {
        name: {
            "median_ms": round(1e3 * timing.median / repeats[name], 5),
            "min_ms": round(1e3 * timing.minimum / repeats[name], 5),
        }
        for name, timing in timings.items()
    }

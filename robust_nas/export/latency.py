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
from robust_nas.errors import ConfigError, RobustNASError
from robust_nas.export.onnx import OnnxModel, first_line, onnx_bytes
from robust_nas.nets import channels_last
from robust_nas.timing import interleaved

ROUNDS = 7
SECONDS = 0.02  # of a round, at least
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Calls = dict[str, Callable[[Tensor], Any]]
Latencies = dict[str, dict[str, dict[str, dict[str, float]]]]


def latencies(
    networks: Mapping[str, nn.Module],
    input_shape: tuple[int, int, int],
    *,
    batches: Sequence[int] = (1, 16),
    rounds: int = ROUNDS,
    runtimes: Sequence[str] = ("torch", "onnxruntime"),
) -> tuple[Latencies, list[str]]:
    """Return `[network][runtime][batch]` to `median_ms` and `min_ms` of a call, and the gaps with reasons.

    `runtimes` are some of `RUNTIMES`; one that is not there, or fails on one of the networks, is left out for all
    of them: whatever it raises is the reason of a gap, since a measurement must not cost the work before it. Networks
    are on the CPU, images of `input_shape` = (C, H, W).
    """
    missing: list[str] = []
    found: Latencies = {name: {} for name in networks}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for runtime in runtimes:
            title, prepare = RUNTIMES[runtime]
            try:
                calls = prepare(networks, input_shape)
                timed = {batch: _timed(calls, _images(batch, input_shape), rounds) for batch in batches}
            except RobustNASError as error:
                missing.append(f"{title}: {error}")
            except Exception as error:  # whatever a foreign module, or a runtime that runs it, raises
                missing.append(f"{title}: {type(error).__name__}: {first_line(error)}")
            else:
                for name in networks:
                    found[name][runtime] = {str(batch): timed[batch][name] for batch in batches}
    finally:
        torch.set_num_threads(threads)
    return found, missing


def _images(batch: int, input_shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(batch, *input_shape, generator=torch.Generator().manual_seed(0))


def _in_torch(networks: Mapping[str, nn.Module], input_shape: tuple[int, int, int]) -> Calls:
    return {name: _torch(network, input_shape) for name, network in networks.items()}


def _in_onnxruntime(networks: Mapping[str, nn.Module], input_shape: tuple[int, int, int]) -> Calls:
    """Return calls of ONNX Runtime. Raise `RobustNASError` where it is absent or cannot take one of the networks."""
    refuse_absent()
    return {name: OnnxModel(onnx_bytes(network, input_shape)) for name, network in networks.items()}


def refuse_absent() -> None:
    """Raise `ConfigError` where ONNX Runtime, or what writes its files, is not installed."""
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        raise ConfigError(f"{', '.join(absent)} not installed (pip install 'robust-nas[export]')")


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


# By the key in a record: the name in messages, and what prepares the calls.
RUNTIMES = {"torch": ("torch", _in_torch), "onnxruntime": ("ONNX Runtime", _in_onnxruntime)}

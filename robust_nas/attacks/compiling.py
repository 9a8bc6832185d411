"""Compiled input gradients: torch.compile of a model's folded copy, for attacks of many steps.

    never    the folded copy as it is
    auto     compile where at least `LEAST_GRADIENTS` input gradients lie ahead; where that fails, the copy as it is
    always   compile, or raise `AttackError`

An input gradient is one backward pass of one batch to its images: steps x starts x target classes x batches. A
single call knows its own batch alone; an evaluation and a training say by `many_gradients` how many they take together.
The number follows from the options and the number of images, never from what is done already, so that a resumed job
decides as before. `AttackResult.model_form` says what was decided, and why not.

One compilation of a copy serves every batch size, every attack on the model, and new weights, which the copy holds as
parameters; each precision takes one of its own. On a CPU, torch chooses other kernels for fewer than 16 images, which
would be a second compilation: such a batch takes the copy as it is. Compiled and plain gradients differ by rounding.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robust_nas.errors import AttackError
from robust_nas.layers.agreement import agree

if TYPE_CHECKING:
    from robust_nas.attacks.checks import AttackOptions

LEAST_GRADIENTS = 3000  # what repaid a compilation of 60 to 90 s (docs/benchmarks/attacks.md)
LEAST_BATCH = 16  # images; torch's own limit between two kernels (`use_mkldnn` of a convolution)
RELATIVE = 1e-3  # of what decides (`layers/agreement.py`), in float32 or higher
BACKEND = "inductor"

_AHEAD: ContextVar[int] = ContextVar("robust_nas_input_gradients", default=0)


@contextlib.contextmanager
def many_gradients(ahead: int) -> Iterator[None]:
    """Say how many input gradients of one model the attacks inside take together."""
    token = _AHEAD.set(ahead)
    try:
        yield
    finally:
        _AHEAD.reset(token)


class CompiledCopy:
    """A folded copy, called for input gradients: compiled for `LEAST_BATCH` images and more, else as it is."""

    def __init__(self, copy: nn.Module) -> None:
        self.copy = copy
        # Whole or not at all: a graph in pieces, or a shape too many, is an error and no slow path that nobody sees.
        self.compiled: Any = torch.compile(copy, backend=BACKEND, dynamic=False, fullgraph=True)
        self._tried: dict[tuple[Any, ...], str] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits `[B, K]` of images `[B, C, H, W]`."""
        if len(x) < LEAST_BATCH:
            small: Tensor = self.copy(x)
            return small
        x = _same_strides(x)
        torch._dynamo.mark_dynamic(x, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice to who writes models
            logits: Tensor = self.compiled(x)
        return logits

    def problem(self, images: Tensor) -> str:
        """Return why the copy cannot be compiled for such images in the present autocast; "" where it can.

        It is compiled, forward and backward, on a first batch of `LEAST_BATCH` images or more; afterwards it is known.
        """
        if len(images) < LEAST_BATCH:
            return f"fewer than {LEAST_BATCH} images"
        kind = images.device.type
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = (images.device, images.dtype, images.shape[1:], half)
        if key not in self._tried:
            self._tried[key] = self._try(images[:LEAST_BATCH].detach(), bool(half))
        return self._tried[key]

    def _try(self, images: Tensor, half: bool) -> str:
        """Compile for some images, and return why it fails; "" where it does not."""
        x = images.clone().requires_grad_()
        devices = [x.device] if x.device.type == "cuda" else []
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=devices):
                warnings.simplefilter("ignore")
                logits = self(x.clone())
                torch.autograd.grad(logits.sum(), x)
        except Exception as error:  # a compiler raises whatever it meets
            return _reason(error)
        with torch.no_grad():
            if not half and not agree(self.copy(images.clone()), logits.detach(), RELATIVE):
                return "the compiled copy gives other logits"
        return ""


def compiled_copy(
    options: AttackOptions, copy: nn.Module, compilations: dict[str, CompiledCopy] | None, images: Tensor
) -> tuple[CompiledCopy | None, str]:
    """Return the compiled form of a folded copy where an attack's options ask for it, or None and why not.

    `compilations` are kept with the trace of the copy; None: the model makes its copy itself, a new one every time.
    Raises `AttackError` where it is asked for in any case and cannot be had.
    """
    if options.compile == "never":
        return None, ""
    if options.not_compiled:
        return None, options.not_compiled
    ahead = max(_AHEAD.get(), options.input_gradients)
    if options.compile == "auto" and ahead < LEAST_GRADIENTS:
        return None, f"{ahead:,} input gradients lie ahead, {LEAST_GRADIENTS:,} are needed"
    if compilations is None:
        why = "it makes its folded copy itself"
    else:
        if BACKEND not in compilations:
            compilations[BACKEND] = CompiledCopy(copy)
        found = compilations[BACKEND]
        why = found.problem(images)
        if not why:
            return found, ""
        if len(images) < LEAST_BATCH:  # what is left of a batch, which no options foresee
            return None, why
    refuse_uncompiled(options, why)
    return None, why


def refuse_uncompiled(options: AttackOptions, why: str) -> None:
    """Raise `AttackError` for an attack that is to be compiled in any case."""
    if options.compile == "always":
        raise AttackError(
            f"{options.label}: compile is 'always', but the model is not compiled: {why}; allowed here: never, auto"
        )


def _same_strides(x: Tensor) -> Tensor:
    """Return images `[B, C, H, W]` in channels-last order, with one stride for sides of 1, which may have any."""
    x = x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return x if x.stride() == strides else x.as_strided(x.shape, strides)


def _reason(error: Exception) -> str:
    """Return the first line of the innermost error, with its type: the outer ones name the backend alone."""
    while isinstance(inner := getattr(error, "inner_exception", None) or error.__cause__, Exception):
        error = inner
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:120]}"

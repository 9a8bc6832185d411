"""The steps of a compression, one after the other: what they refuse beforehand, and the networks that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from robust_nas.compression import COMPRESSORS, Candidate, CompressionContext, Compressor
from robust_nas.compression.context import ORIGINAL
from robust_nas.errors import CompressionError, NothingToCompressError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import nn


def refuse_out_of_reach(
    network: nn.Module, shape: tuple[int, int, int], steps: tuple[Compressor, ...], command: str = ""
) -> None:
    """Raise `CompressionError` for a budget that a network cannot meet, before anything is written or trained.

    `shape` is that of an image, [C, H, W]. The network may be untrained: budgets depend on its layers.

    A later step refuses what is far out of reach of the networks that the step before it previews. `command` is the
    beginning of a command that compresses the model, for advice.
    """
    try:
        steps[0].refuse(network, shape)
    except NothingToCompressError as error:
        advice = [
            f"{command}--method {name} {options}"
            for name in COMPRESSORS.built_in
            if (options := COMPRESSORS.make(name).options_for(network, shape)) is not None
        ]
        if not advice:
            raise
        raise NothingToCompressError(
            f"{steps[0].label}: {error}; what works: {' or '.join(advice)}"
        ) from None
    _refuse_previews(network, shape, steps)
    for step in steps:
        _refuse_touched_layers(network, shape, step)


def _refuse_touched_layers(network: nn.Module, shape: tuple[int, int, int], step: Compressor) -> None:
    """Raise `CompressionError` for a module that fails once its layers have another form."""
    changed = step.other_form(network, shape)
    if changed is not None:
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                for training in (False, True)[: 1 + step.trains]:
                    changed.train(training)(torch.zeros(2, *shape))
        except Exception as error:  # whatever a foreign module raises
            raise CompressionError(
                f"{step.label}: {type(network).__name__} fails with its layers in another form: "
                f"{type(error).__name__}: {error}; its forward may call layers, but not read what is inside them, "
                "such as self.conv.weight"
            ) from error


def _refuse_previews(network: nn.Module, shape: tuple[int, int, int], steps: tuple[Compressor, ...]) -> None:
    for step in steps[1:2]:
        for label, preview in steps[0].previews(network, shape):
            with _starting(step, label):
                step.refuse_preview(label, preview, shape)
            _refuse_previews(preview, shape, steps[1:])


def make_candidates(
    context: CompressionContext, steps: tuple[Compressor, ...]
) -> Iterator[tuple[Compressor, Candidate]]:
    """Make the networks of every step, on each network of the step before it that is no baseline.

    A later step is asked what it refuses when it starts. Raises `CompressionError` for a budget out of reach, and for
    two networks of one label.
    """
    bases: list[Candidate | None] = [None]
    labels = {ORIGINAL}
    for step in steps:
        made: list[Candidate | None] = []
        for base in bases:
            here = context.at(step.label, base)
            if base is not None:
                with _starting(step, base.label):
                    step.refuse(here.model.network, here.model.description.input_shape)
            for candidate in step.candidates(here):
                if candidate.label in labels:
                    raise CompressionError(
                        f"{candidate.label}: is made more than once; labels have to differ"
                    )
                labels.add(candidate.label)
                if candidate.baseline_of is None:
                    made.append(candidate)
                yield step, candidate
        bases = made


@contextmanager
def _starting(step: Compressor, label: str) -> Iterator[None]:
    """Say in what is refused inside that it is this step, on the network of this label."""
    try:
        yield
    except CompressionError as error:
        raise CompressionError(f"{step.label} on {label}: {error}") from None

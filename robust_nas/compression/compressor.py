"""The protocol of compressors: the options of one step, what others may ask of it, and the networks that it makes.

A new compressor is a subclass with its options, `refuse` and `candidates`, in a file of its own, and a line in
`COMPRESSORS`. A compression is a sequence of such steps; each starts from what the step before it made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import AfterValidator

from robust_nas.registry import Method, Registry

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.compression.context import Candidate, CompressionContext


class Compressor(Method):
    """Base of all compressors."""

    first: ClassVar[bool] = (
        False  # whether it takes a model as it was trained alone: it has to be the first step
    )
    budget_options: ClassVar[
        Mapping[str, tuple[str, ...]]
    ] = {}  # option of the command line -> overrides of its keys

    @property
    def trains(self) -> bool:
        """Return whether it trains on images by the recipe; others take seconds."""
        return False

    def refuse(self, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Raise `CompressionError` where it finds nothing to compress, or where a budget is out of reach.

        It is called on the original before a folder is made, and as a later step on each network that it starts from;
        `input_shape` is (C, H, W).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it refuses")

    def options_for(self, network: nn.Module, input_shape: tuple[int, int, int]) -> str | None:
        """Return the options of the command line that ask for what the network allows; None: the step has no advice."""
        return None

    def previews(
        self, network: nn.Module, input_shape: tuple[int, int, int]
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield label and estimated form of each network that the next step starts from, before anything is trained.

        By them the next step refuses before anything is written; a step that cannot say yields nothing.
        """
        return iter(())

    def refuse_preview(self, label: str, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Raise `CompressionError` where a budget is far out of reach of an estimated network, before it is trained."""

    def other_form(self, network: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module | None:
        """Return a copy with every layer that the step may take in its other form, whatever the values; None: unknown.

        A module that reads the weights of its layers itself is refused by it before anything is written.
        """
        return None

    def candidates(self, context: CompressionContext) -> Iterator[Candidate]:
        """Make the networks, each a model folder, in their order: one a budget, and the baselines of each.

        What an earlier call finished is taken over. Raises `CompressionError` for a budget out of reach.
        """
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")

    def draw(self, candidate: Candidate, folder: Path, about: str) -> list[str]:
        """Draw the figures of its own for the chosen network; returns their paths, as seen from `folder`."""
        return []


COMPRESSORS = Registry(
    "compressor",
    Compressor,
    "robust_nas.compression",
    {"gdws": "gdws:GDWS", "cstar": "cstar:CSTAR"},
    group="robust_nas.compressors",
)


def _different(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return values of different names, which are those of folders too."""
    names = [f"{value:g}" for value in values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is listed more than once (six digits count)")
    return values


Different = AfterValidator(_different)  # of the budgets of a compressor

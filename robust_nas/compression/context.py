"""What a compressor works with: the model it starts from, images, recipe, and where its networks are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.config import Options, to_yaml
from robust_nas.run_folder import RECIPE, Mode, Progress, write_atomic

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.data import Augment, Images
    from robust_nas.layers.factorised import LayerForm
    from robust_nas.nets import Model
    from robust_nas.training import Training


ORIGINAL = "original"  # label


@dataclass(frozen=True)
class Candidate:
    """A network that a compression made: its model folder, what made it, and whether it is there for comparison."""

    label: str
    method: str  # labels of the steps, or a baseline's own name
    folder: Path
    made_from: str = ORIGINAL  # label
    baseline_of: str | None = None  # label


@dataclass(frozen=True)
class OriginalModel:
    """The model that is compressed: of a folder, or the user's own module with the place that it came from."""

    model: Model
    folder: Path | None  # of the model; None: a module
    spec: str = ""  # path.py:function
    weights: Path | None = None

    @property
    def module(self) -> nn.Module | None:
        """Return the user's own module, which its compressed forms are rebuilt from."""
        return self.model.network if self.folder is None else None


@dataclass(frozen=True)
class CompressionContext:
    """One step of a compression on one model: `base`, or the original where that is None."""

    original: OriginalModel
    config: Options  # the job's, stored in every folder: `robust-nas evaluate` finds data and protocol in it
    recipe: Training  # of networks that are trained again
    augmentation: Augment
    images: Images  # the training split, on the device
    validation: Images  # at most as many as the recipe validates with, on the device
    device: torch.device
    seed: int
    checkpoint_seconds: float
    root: Path  # of the compression
    mode: Mode
    progress: Progress
    step: str = ""  # label of the compressor
    base: Candidate | None = None

    def at(self, step: str, base: Candidate | None) -> CompressionContext:
        """Return the context of another step, or base."""
        return replace(self, step=step, base=base)

    @cached_property
    def model(self) -> Model:
        """Return the model that the step starts from, on the CPU in eval mode."""
        return self.original.model if self.base is None else self.read(self.base)

    @property
    def inner_mode(self) -> Mode:
        """Return the mode of the runs inside: they continue what is there, or there is nothing."""
        return "resume" if self.mode == "resume" else "new"

    def path(self, name: str) -> Path:
        """Return the folder of this name for the step on its base."""
        return self.root / (name if self.base is None else f"{self.base.label}-{name}")

    def read(self, candidate: Candidate) -> Model:
        """Return a candidate's model, on the CPU."""
        from robust_nas.nets import read_model

        return read_model(candidate.folder, module=self.original.module)

    def candidate(
        self,
        label: str,
        folder: Path,
        *,
        method: str | None = None,
        made_from: Candidate | None = None,
        baseline_of: Candidate | None = None,
    ) -> Candidate:
        """Return a network that is in `folder` as a candidate; its label and method begin with those of the base.

        `method` is a baseline's own name; `made_from` is a candidate of the same step that this one was made from.
        """
        method, base = method or self.step, self.base
        source = made_from or base
        return Candidate(
            label=label if base is None else f"{base.label}+{label}",
            method=method if base is None else f"{base.method}+{method}",
            folder=folder,
            made_from=ORIGINAL if source is None else source.label,
            baseline_of=None if baseline_of is None else baseline_of.label,
        )

    def save(
        self,
        label: str,
        network: nn.Module,
        forms: Iterable[LayerForm],
        made: Mapping[str, Any],
        folder: Path | None = None,
    ) -> Candidate:
        """Write a model folder (default `path(label)`) and return its candidate.

        `forms` are those of the layers that the step replaced, in their order; `made` is what the model was made by.
        """
        from robust_nas.nets import inference_state, save_model

        folder = folder or self.path(label)
        description = self.model.description.changed(forms, {self.step: dict(made)})
        save_model(folder, self.model.architecture, inference_state(network), description)
        write_atomic(folder / RECIPE, to_yaml(self.config).encode())
        return self.candidate(label, folder)

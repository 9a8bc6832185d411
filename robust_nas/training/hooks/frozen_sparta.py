"""The Sparta-style activations of a trained network, frozen in the network that is trained.

The paper's claim is that an activation trained in one network, or on one dataset, serves in another; this hook is the
second half of such a transfer (`operations/sparta.py` says what of it is inferred). The parameters are taken over by
their keys before optimiser and averages are made, and want no gradient: neither steps nor weight decay move them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from robust_nas.config import AbsolutePath, absolute_path, existing_file
from robust_nas.errors import ConfigError
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, TrainingHook

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.spaces import Architecture

FILES = ("architecture.yaml", "model.safetensors")  # of a model folder, which decide its activations


class FrozenSparta(HookOptions):
    """The shared activations of the model in a folder, frozen.

    A training is known by the `digest` of that model, which is filled in where it is left out.
    """

    needs_end: ClassVar[bool] = False

    name: Literal["frozen-sparta"] = "frozen-sparta"
    model: AbsolutePath  # folder of the trained model
    digest: str = ""  # SHA-256 of the model's files, filled in

    @model_validator(mode="before")
    @classmethod
    def _digested(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("model"), str) and not tree.get("digest"):
            return {**tree, "digest": _digest(Path(absolute_path(tree["model"])))}
        return tree

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` where the activations are not those of the network, or the model has changed."""
        from robust_nas.spaces import load_architecture

        self._refuse_changed()
        donor = load_architecture(Path(self.model) / FILES[0])
        given, own = set(donor.shared_activations()), set[str]()
        if not given:
            raise ConfigError(
                f"hook frozen-sparta: {self.model}: {donor.name} has no shared activations to give"
            )
        used = donor.activations_used()
        if not isinstance(architecture, type):
            own = set(architecture.shared_activations())
            used |= architecture.activations_used()
        if given != own or len(used) > 1:
            what = architecture.called if isinstance(architecture, type) else architecture.name
            raise ConfigError(
                f"hook frozen-sparta: {donor.name} in {self.model} gives activations {', '.join(sorted(given))}; "
                f"{what} has {', '.join(sorted(own)) or 'none'}; activations: {', '.join(sorted(used))}. "
                "Both need the same ones"
            )

    def prepare(self, network: nn.Module) -> None:
        """Take over the activations, frozen."""
        from robust_nas.nets import extract_sparta, load_sparta, read_model

        self._refuse_changed()
        load_sparta(network, extract_sparta(read_model(Path(self.model)).undefended.network))

    def _refuse_changed(self) -> None:
        try:
            now = _digest(Path(self.model))
        except ValueError as error:
            raise ConfigError(f"hook frozen-sparta: {error}") from None
        if now != self.digest:
            raise ConfigError(
                f"hook frozen-sparta: {self.model}: has changed since its digest was taken; it was {self.digest}, "
                f"is {now}"
            )

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return a hook that does nothing: all was done by `prepare`."""
        return TrainingHook()


def _digest(folder: Path) -> str:
    """Return 16 hex digits of the SHA-256 of the files that decide a model's activations.

    Raises `ValueError`, as validators of pydantic have to, for a folder without a model of an architecture.
    """
    digest = hashlib.sha256()
    for name in FILES:
        path = folder / name
        if existing_file(path) is None:
            raise ValueError(f"model: {folder}: no model of an architecture, {name} is missing")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

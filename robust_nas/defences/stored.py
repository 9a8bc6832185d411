"""A defence as a model folder holds it: options, calibrated values, and the network that it was made for.

Its seal is a digest of all of these, and of the defence's own tensors. It finds an edit of one of them, such as a
threshold, and a defence that was copied from another model's folder; it is no signature, and whoever means to deceive
can write a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_nas.config import Count, CountOrZero, Number, Options, to_dict, tree_hash
from robust_nas.defences.defence import DEFENCES, Defence
from robust_nas.errors import CheckpointError
from robust_nas.lazy import torch
from robust_nas.user_code import names_by_content

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended


class Calibration(Options):
    """Of which images the calibrated values are: always of the validation split, which is cut from the training set."""

    part: Literal["validation"] = "validation"
    dataset: str
    checksum: str
    images: Count
    seed: CountOrZero


class StoredDefence(Options):
    """The key `defence` of `model.json`."""

    method: Annotated[Defence, DEFENCES.field()]
    values: dict[str, Number] = Field(default={})
    calibration: Calibration | None = None
    network: str  # digest of the undefended model
    # Digest of the defence's own tensors, 16 hex digits; of one without tensors there is no such key.
    tensors: str | None = Field(default=None, exclude_if=lambda tensors: tensors is None)
    seal: str

    @classmethod
    def of(
        cls,
        method: Defence,
        values: dict[str, float],
        calibration: Calibration | None,
        network: str,
        own: Mapping[str, Tensor] | None = None,
    ) -> StoredDefence:
        """Return the record of a defence, sealed; `own` are its tensors, as `Defended.own_state` gives them."""
        tensors = _digest(own or {})
        record = cls(
            method=method, values=values, calibration=calibration, network=network, tensors=tensors, seal=""
        )
        return record.model_copy(update={"seal": record.digest})

    @property
    def digest(self) -> str:
        """Return the digest of everything but the seal, 16 hex digits."""
        return tree_hash({**names_by_content(to_dict(self)), "seal": ""})

    def around(self, network: nn.Module, digest: str, own: Mapping[str, Tensor], source: str) -> Defended:
        """Return the network with its defence; `digest` is that of the undefended model, `own` the defence's tensors.

        Raises `CheckpointError` for a record or tensors that were changed, and for a record of another network.
        """
        if self.seal != self.digest:
            raise CheckpointError(
                f"{source}: defence: its options, values or calibration were changed (seal {self.seal[:16]!r}, "
                f"their digest is {self.digest}); defend the model again"
            )
        if self.network != digest:
            raise CheckpointError(
                f"{source}: defence: was made for the network {self.network[:12]}, this one is {digest[:12]}; "
                "a threshold of one network says nothing of another: defend this model"
            )
        if self.tensors != _digest(own):
            raise CheckpointError(
                f"{source}: defence: its tensors were changed (digest {str(self.tensors)[:16]!r}, theirs is "
                f"{_digest(own)}); defend the model again"
            )
        defended = self.method.wrap(network, self.values)
        defended.load_state_dict(own, strict=False)  # the network has its tensors
        return defended


def _digest(own: Mapping[str, Tensor]) -> str | None:
    """Return 16 hex digits of names, types, shapes and values of tensors; None where there are none."""
    if not own:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(own.items()):
        digest.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()[:16]

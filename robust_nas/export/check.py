"""Whether an exported form computes what the model computes: logits on the same images, and the accuracy of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robust_nas.errors import RunError
from robust_nas.layers.agreement import disagreement

if TYPE_CHECKING:
    from robust_nas.data import Images

RELATIVE = 1e-4  # of what decides (`layers/agreement.py`): other kernels round otherwise, layer after layer
BATCH = 64


@dataclass(frozen=True)
class Comparison:
    """An exported form and the model: difference of their logits, largest finite logit, and both accuracies.

    `disagreement` is relative to what decides the model's answers (`layers/agreement.py`).
    """

    images: int
    disagreement: float
    max_difference: float
    largest_logit: float
    same_class: float
    accuracy: float
    model_accuracy: float

    @property
    def passes(self) -> bool:
        """Return whether the logits disagree by at most 1e-4; NaN is never within it."""
        return self.disagreement <= RELATIVE

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with `passes`."""
        return {**asdict(self), "tolerance": RELATIVE, "passes": self.passes}


def compare(
    exported: Callable[[Tensor], Tensor], model: Callable[[Tensor], Tensor], images: Images
) -> Comparison:
    """Run both on images in batches of 64, and on the first image alone. Raise `RunError` for another shape."""
    ours, theirs = [], []
    with torch.no_grad():
        for indices in torch.split(torch.arange(len(images)), BATCH):
            x = images.subset(indices).float()
            ours.append(exported(x).float())
            theirs.append(model(x).float())
        first = images.subset(torch.arange(1)).float()
        ours.append(exported(first).float())
        theirs.append(model(first).float())
    a, b = torch.cat(ours), torch.cat(theirs)
    if a.shape != b.shape:
        raise RunError(f"the exported form gives {tuple(a.shape)}, the model {tuple(b.shape)}")
    apart = disagreement(b, a) if not b.isnan().any() else float("inf")
    difference = float((a - b).abs().masked_fill(a == b, 0.0).nan_to_num(nan=float("inf")).max())
    a, b = a[:-1], b[:-1]
    return Comparison(
        images=len(images),
        disagreement=apart,
        max_difference=difference,
        largest_logit=float(b.nan_to_num(0.0, 0.0, 0.0).abs().max()),
        same_class=float((a.argmax(1) == b.argmax(1)).double().mean()),
        accuracy=float((a.argmax(1) == images.labels).double().mean()),
        model_accuracy=float((b.argmax(1) == images.labels).double().mean()),
    )

"""Whether an exported form computes what the model computes: logits on the same images, and the accuracy of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robust_nas.errors import RunError

if TYPE_CHECKING:
    from robust_nas.data import Images

RELATIVE = 1e-4  # of the largest logit: other kernels round otherwise, layer after layer
BATCH = 64


@dataclass(frozen=True)
class Comparison:
    """An exported form and the model: largest difference of a logit, largest logit, and both accuracies."""

    images: int
    max_difference: float
    largest_logit: float
    same_class: float
    accuracy: float
    model_accuracy: float

    @property
    def passes(self) -> bool:
        """Return whether no logit differs by more than 1e-4 of the largest one."""
        return self.max_difference <= RELATIVE * self.largest_logit

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with `passes`."""
        return {**asdict(self), "tolerance": RELATIVE * self.largest_logit, "passes": self.passes}


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
    difference = float((a - b).abs().max()) if a.isfinite().all() else float("inf")
    a, b = a[:-1], b[:-1]
    return Comparison(
        images=len(images),
        max_difference=difference,
        largest_logit=float(b.abs().max()),
        same_class=float((a.argmax(1) == b.argmax(1)).double().mean()),
        accuracy=float((a.argmax(1) == images.labels).double().mean()),
        model_accuracy=float((b.argmax(1) == images.labels).double().mean()),
    )

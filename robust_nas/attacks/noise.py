"""Random noise as a control: the best of several points drawn on the sphere of radius eps, with no gradient.

Linf: every pixel moves by eps, up or down; L2 and L1: a uniform point of the sphere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.attack import BoundedAttack, Guide, Passes
from robust_nas.attacks.best_iterate import BestIterate, misclassified
from robust_nas.attacks.losses import margin
from robust_nas.attacks.minimal import distance
from robust_nas.attacks.norms import Norm, direction, on_sphere, project
from robust_nas.config import Count
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.attacks.attacked_model import AttackedModel


class Noise(BoundedAttack):
    """The best of several random perturbations on the sphere of radius eps: a control, not an attack."""

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    guided_by: ClassVar[Guide] = "chance"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    name: Literal["noise"] = "noise"
    draws: Count = 10  # perturbations an image

    @property
    def label(self) -> str:
        """Name and draws: `noise-10`."""
        return f"noise-{self.draws}"

    @property
    def passes(self) -> Passes:
        """Return one forward pass a draw, and the image itself."""
        return Passes(self.draws + 1, 0)

    def _noise(self, images: Tensor, generator: Generator) -> Tensor:
        """Return a point of the sphere around 0, `[B, C, H, W]`."""
        if self.norm == "l1":
            return on_sphere(images, self.eps, "l1", generator)
        noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
        return self.eps * direction(noise.normal_(generator=generator), self.norm)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the most harmful of the draws and of the image itself, `[B, C, H, W]`."""
        images = model.images
        best = BestIterate(images, model.labels)
        clean = model.logits(images)
        best.update(images, clean, margin(clean, model.labels))
        log = model.query_log()
        log.count()
        wrong = misclassified(clean, model.labels)
        near = images.new_zeros(len(wrong)).masked_fill(~wrong, torch.inf)  # [B] the nearest success so far
        log.nearer(wrong.nonzero().squeeze(1), near[wrong])
        for _ in range(self.draws):
            x = images + self._noise(images, model.generator)
            x = project(x, images, self.eps, self.norm)
            drawn = model.verified_logits(x, model.candidate_logits(x), model.labels)
            best.update(x, drawn, margin(drawn, model.labels))
            log.count()
            size = distance(x, images, self.norm)
            nearer = misclassified(drawn, model.labels) & (size < near)
            log.nearer(nearer.nonzero().squeeze(1), size[nearer])
            near = torch.where(nearer, size, near)
        return model.no_worse(best.images, clean)

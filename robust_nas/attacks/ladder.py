"""LADDER-style attack: images decoded from across latent boundaries (after Zhou, Tsang and Yin, Mach. Learn. 2022).

    x'(eps) = G(z + eps A(z) * n),   z = e(x);    n: the unit normal of the SVM from y toward another class t
    x'      = x'(smallest eps found with f(x'(eps)) != y), of the classes t tried the one nearest to x

eps is tried at `steps` + 1 values from 0 to `reach` times the distance to where the SVM has its margin of 1 beyond the
boundary, then halved `halvings` times between the last that kept the answer and the first that changed it. Published:
steps of one size, ten times larger from 1 on, at most ten, toward one class drawn at random.

It has no norm bound: x' contains the error of the decoder, whose images may be misclassified at eps = 0. So it takes no
eps, no evaluation lists it, and its result says how far images and their reconstructions are. An image that is
misclassified, or for which nothing is found, is kept as it is; `norm` is that by which x' is near.

B batch, C channels, H height, W width, K classes, d numbers of a latent.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.attacks.attack import Attack, Guide, Passes
from robust_nas.attacks.best_iterate import misclassified
from robust_nas.attacks.minimal import distance, nearest
from robust_nas.config import AbsolutePath, Count, CountOrZero, NonNegative, Positive
from robust_nas.errors import AttackError, CheckpointError, ConfigError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel
    from robust_nas.attacks.best_iterate import BestIterate
    from robust_nas.attacks.ladder_fit import LadderParts
    from robust_nas.attacks.latent_boundaries import Side


class LatentBoundary(Attack):
    """The nearest decoded image across a latent boundary (LADDER-style); in no ball.

    `folder` is one of `fit_ladder`. `transfer`: the model may be another one than the parts were fitted to, whose
    encoder is then read from the folder. `targets`: how many classes are tried, by the distance of their boundaries.
    What it makes is known by the `digest` of the folder, which is filled in where it is left out.
    """

    bounded: ClassVar[bool] = False
    not_preset: ClassVar[frozenset[str]] = frozenset({"eps"})
    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    guided_by: ClassVar[Guide] = "generator"

    name: Literal["ladder"] = "ladder"
    folder: AbsolutePath  # of the fitted decoder and boundaries
    digest: str = ""  # SHA-256 of the folder's files, filled in
    transfer: bool = False  # whether the model may be another one than was fitted to
    eps: NonNegative | None = None
    bn: Literal["eval"] = "eval"
    fold: bool = False  # attack a folded copy. Candidates come from the decoder: it would make nothing faster
    targets: Count = 1  # classes that are tried, by the distance of their boundaries
    steps: Annotated[Count, Field(le=1000)] = 10  # across a boundary
    reach: Positive = 3.0  # length of the walk, in distances to the boundary
    halvings: CountOrZero = 6  # bisections of the last step

    @model_validator(mode="before")
    @classmethod
    def _digested(cls, tree: Any) -> Any:
        """Fill in the digest; a folder that is missing is refused where it is read, as a damaged one."""
        from robust_nas.attacks.ladder_folder import ladder_digest

        if isinstance(tree, dict) and isinstance(tree.get("folder"), str) and not tree.get("digest"):
            with contextlib.suppress(CheckpointError, ConfigError, OSError):
                return {**tree, "digest": ladder_digest(tree["folder"])}
        return tree

    @model_validator(mode="after")
    def _has_no_ball(self) -> Self:
        if self.eps is not None:
            raise ValueError(f"eps is {self.eps:.6g}, but ladder has no norm bound; allowed: null")
        return self

    @property
    def passes(self) -> Passes:
        """Return the image itself (and its latent), its reconstruction, and the candidates toward every target."""
        return Passes(2 + self.transfer + self.targets * (self.steps + self.halvings), 0)

    def refuse_undefined(self, classes: int, shape: tuple[int, ...], abstains: bool = False) -> None:
        """Raise `CheckpointError` for a folder without parts, `AttackError` for one that has changed."""
        super().refuse_undefined(classes, shape, abstains)
        self._refuse_changed()

    def _refuse_changed(self) -> None:
        from robust_nas.attacks.ladder_folder import ladder_digest

        now = ladder_digest(self.folder)
        if self.digest not in ("", now):
            raise AttackError(
                f"{self.label}: {self.folder}: has changed since its digest was taken; it was {self.digest}, is {now}"
            )

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the nearest of the misclassified decoded images, `[B, C, H, W]`; else the image itself."""
        from robust_nas.attacks.ladder_folder import latents_for

        self._refuse_changed()
        labels = model.labels
        z, clean, parts = latents_for(self.folder, model, self.transfer)
        if int(labels.max()) >= parts.boundaries.classes:
            raise AttackError(
                f"label {int(labels.max())}, but {self.folder} has boundaries of {parts.boundaries.classes} classes"
            )
        best = nearest(model, clean)
        reconstructed = self._tried(model, parts, z, best)
        targets = parts.boundaries.nearest(z, labels, self.targets)
        for target in targets.unbind(1):  # one after the other: the search toward each keeps its own bracket
            self._search(model, parts, z, target, reconstructed, best)
        self._report(model, parts, z, reconstructed, best)
        return best.images

    def _tried(self, model: AttackedModel, parts: LadderParts, z: Tensor, best: BestIterate) -> Tensor:
        """Decode latents and offer the images; return which are misclassified, `[B]`."""
        x = parts.decode(z).to(model.images.dtype)
        logits = model.logits(x)
        best.update(x, logits, -distance(x, model.images, self.norm))
        return misclassified(logits, model.labels)

    def _search(
        self,
        model: AttackedModel,
        parts: LadderParts,
        z: Tensor,
        target: Tensor,
        reconstructed: Tensor,
        best: BestIterate,
    ) -> None:
        """Look for the smallest eps toward the targets `[B]`; `reconstructed` [B]: whether it is 0."""
        boundaries = parts.boundaries
        side: Side = boundaries.toward(model.labels, target)
        beyond, _ = boundaries.crossing(z, side, side.unit)
        top = self.reach * torch.where(beyond > 0, beyond, side.unit)
        low, high, met = torch.zeros_like(top), torch.zeros_like(top), reconstructed
        for step in range(1, self.steps + 1):
            eps = top * (step / self.steps)
            wrong = self._tried(model, parts, boundaries.moved(z, side, eps), best)
            low, high = torch.where(met, low, high), torch.where(met, high, eps)
            met = met | wrong
        for _ in range(self.halvings):
            middle = (low + high) / 2
            wrong = self._tried(model, parts, boundaries.moved(z, side, middle), best)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)

    def _report(
        self, model: AttackedModel, parts: LadderParts, z: Tensor, reconstructed: Tensor, best: BestIterate
    ) -> None:
        """Note the distances of the decoded and of the returned images, and what the decoder alone breaks."""
        images = model.images
        error = distance(parts.decode(z).to(images.dtype), images, self.norm)
        moved = distance(best.images, images, self.norm)
        changed = moved > 0
        size = f"{moved[changed].median().item():.4g}" if bool(changed.any()) else "none"
        model.flags.append(
            f"no norm bound: median distance in {self.norm} of the {int(changed.sum())} of {len(images)} images that "
            f"were changed: {size}; of the reconstructions alone: {error.median().item():.4g}, "
            f"{int(reconstructed.sum())} of them misclassified"
        )

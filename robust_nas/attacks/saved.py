"""Saved adversarial images, tried on this model: those of a set that `robust-nas attack run` wrote.

    x' = of x and the image stored for it, the one of the higher margin, a misclassified one first

On another model than the one that was attacked it is a transfer attack (Papernot et al., 2016) without the attack; on
the same one it repeats what is known. An image is known again by every bit of its float32 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from robust_nas.attacks import adversarial_set
from robust_nas.attacks.attack import BoundedAttack, Guide, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.checks import TOLERANCE, perturbation
from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import Norm
from robust_nas.config import AbsolutePath
from robust_nas.errors import AttackError, ConfigError, DataError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.adversarial_set import AdversarialSet
    from robust_nas.attacks.attacked_model import AttackedModel


class Saved(BoundedAttack):
    """The images of a saved set, an `.npz` file of `robust-nas attack run`.

    `unknown` says what an image is that the set does not hold: an error, or left as it is. `checksum` is the SHA-256 of
    the file: it is filled in when the config is read, so that another set under the same path is another attack.
    """

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    guided_by: ClassVar[Guide] = "surrogates"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    name: Literal["saved"] = "saved"
    file: AbsolutePath  # `.npz` file of a saved set
    # an image that the set does not hold: an error, or left as it is
    unknown: Literal["refuse", "keep"] = "refuse"
    checksum: str | None = None  # SHA-256 of the file, filled in

    @model_validator(mode="before")
    @classmethod
    def _has_a_checksum(cls, options: Any) -> Any:
        if isinstance(options, dict) and isinstance(options.get("file"), str) and not options.get("checksum"):
            try:
                return {**options, "checksum": adversarial_set.checksum(options["file"])}
            except (DataError, ConfigError) as error:
                raise ValueError(str(error)) from None
        return options

    @property
    def label(self) -> str:
        """Return the name of the file, or of the folder where the file is called `set.npz`: `saved-apgd`."""
        path = Path(self.file)
        return f"saved-{path.parent.name if path.name == 'set.npz' else path.stem}"

    @property
    def passes(self) -> Passes:
        """Return one pass for the image itself and one for the stored one."""
        return Passes(2, 0)

    def refuse_undefined(self, classes: int, shape: tuple[int, ...], abstains: bool = False) -> None:
        """Raise `AttackError` for a set of other images than of `shape`, or that goes farther than eps."""
        found = self._set()
        if found.images.shape[1:] != tuple(shape):
            raise AttackError(
                f"{self.file}: holds images of shape {found.images.shape[1:]}, these are {shape}"
            )
        if int(found.labels.max()) >= classes:
            raise AttackError(f"{self.file}: has label {found.labels.max()}, the model has {classes} classes")
        images, clean = torch.from_numpy(found.images), torch.from_numpy(found.clean)
        size = perturbation(images, clean, self.norm)
        if not self._within(size).all():
            place = int(size.argmax())
            made = found.meta["threat_model"]
            eps = "no bound" if made["eps"] is None else f"eps {made['eps']:.6g}"
            raise AttackError(
                f"{self.file}: image {place} is {float(size[place]):.6g} from its clean image in {self.norm}, more "
                f"than eps {self.eps:.6g} of the threat model; it was made with {eps} in {made['norm']}"
            )

    def refuse_images(self, images: Tensor, labels: Tensor) -> None:
        """Raise `AttackError` for images that the set does not hold, and for one with another label there."""
        found = self._set()
        places = self._places(found, images.float() / 255 if images.dtype == torch.uint8 else images)
        for image, place in enumerate(places):
            if place is not None and found.labels[place] != int(labels[image]):
                raise AttackError(
                    f"{self.file}: image {place} has label {found.labels[place]}, here the same image has "
                    f"{int(labels[image])}"
                )
        self._refuse_unknown(found, places)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the stored images where they harm more, else the images themselves, `[B, C, H, W]`.

        A stored image farther than eps counts as none.
        """
        images, found = model.images, self._set()
        places = self._places(found, images)
        self._refuse_unknown(found, places)
        rows = [row for row, place in enumerate(places) if place is not None]
        stored = torch.from_numpy(found.images[[place for place in places if place is not None]])
        x = images.clone()
        x[rows] = stored.to(images)
        near = self._within(perturbation(x, images, self.norm))
        x = torch.where(near.view(-1, 1, 1, 1), x, images)
        best = BestIterate(images, model.labels)
        for candidate in (images, x):
            logits = model.logits(candidate)
            best.update(candidate, logits, margin(logits, model.labels))
        return best.images

    def _set(self) -> AdversarialSet:
        """Return the set. Raises `DataError` where the file changed since the config was read."""
        if adversarial_set.checksum(self.file) != self.checksum:
            raise DataError(
                f"{self.file}: is not the file of this attack any more; its SHA-256 was {self.checksum}"
            )
        return adversarial_set.read_set(self.file)

    def _within(self, size: Tensor) -> Tensor:
        """Whether perturbations of these sizes `[B]` keep to eps, up to rounding."""
        return size <= self.eps + TOLERANCE * max(1.0, self.eps)

    def _places(self, found: AdversarialSet, images: Tensor) -> list[int | None]:
        """Return the place of each image in the set, None where it is not there."""
        if tuple(images.shape[1:]) != found.clean.shape[1:]:
            return [None] * len(images)
        return [found.places.get(adversarial_set.digest(image)) for image in images.float().cpu().numpy()]

    def _refuse_unknown(self, found: AdversarialSet, places: list[int | None]) -> None:
        missing = [number for number, place in enumerate(places) if place is None]
        if missing and self.unknown == "refuse":
            raise AttackError(
                f"{self.file}: does not hold {len(missing)} of {len(places)} images, such as image {missing[0]}; it "
                f"holds {len(found)}, drawn with seed {found.meta['seed']}: evaluate on those (images, seed), or set "
                "unknown: keep to leave the others as they are"
            )

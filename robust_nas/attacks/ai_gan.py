"""AI-GAN: a trained generator makes targeted perturbations in one forward pass (Bai et al.).

    x_t = P(x + s G(x, t))       for every class t but the label, or for one drawn at random
    x'  = of x and all x_t, per example the one of the highest margin, misclassified ones first
    P   = the projection onto the ball of radius eps around x and onto the box 0..1;  s = share

G is trained for one victim, norm and eps (`training/ai_gan.py`), which its folder names. Another victim is refused
unless `transfer` says that it is meant; another norm always; another eps unless `share` says to which part of its own
eps the generator is scaled. The victim is asked for its answers alone, no gradients are taken here.

Source: arXiv 2002.02196 and 2111.10055. Trying every target class is our choice; the best candidate per example as in
all attacks here. B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import model_validator

from robust_nas.attacks.attack import BoundedAttack, Guide, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import project
from robust_nas.config import AbsolutePath, NonNegative, absolute_path, existing_file
from robust_nas.errors import AttackError
from robust_nas.files import files_digest
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.attacks.attacked_model import AttackedModel
    from robust_nas.nets.generator_folder import GeneratorDescription, StoredGenerator

FILES = ("generator.json", "generator.safetensors")  # of a generator folder, which decide its images
SAME_EPS = 1e-6  # relative, for the rounding of `share`


class AIGAN(BoundedAttack):
    """A generator that was trained for this victim aims at every other class, each in one pass (Bai et al.).

    An evaluation or a training is known by the `digest` of the generator, which is filled in where it is left out.
    """

    for_training: ClassVar[bool] = True
    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    guided_by: ClassVar[Guide] = "generator"
    name: Literal["ai-gan"] = "ai-gan"
    bn: Literal["eval"] = "eval"  # running batch-norm statistics. The generator was trained for them
    fold: bool = False  # attack a folded copy. A pass for each class does not pay for it
    generator: AbsolutePath  # folder of the trained generator
    digest: str = ""  # SHA-256 of the generator's files, filled in
    targets: Literal["all", "random"] = (
        "all"  # every class but the label, or one of these, drawn for each image
    )
    transfer: bool = False  # whether the victim may be another network than the generator's
    share: NonNegative = 1.0  # of the generator's eps, to which its perturbations are scaled
    keep: Literal["best", "last"] = "best"  # best iterate of every example, or the last one

    @model_validator(mode="before")
    @classmethod
    def _digested(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("generator"), str) and not tree.get("digest"):
            return {**tree, "digest": _digest(absolute_path(tree["generator"]))}
        return tree

    @property
    def label(self) -> str:
        """Name and what is not usual: `ai-gan`, `ai-gan-random`, `ai-gan-transferred`."""
        random = "-random" if self.targets == "random" else ""
        return f"ai-gan{random}" + ("-transferred" if self.transfer else "")

    @property
    def returns_best(self) -> bool:
        """Return whether the image itself is a candidate."""
        return self.keep == "best"

    @property
    def targeted(self) -> bool:
        """Return True: each candidate aims at a class."""
        return True

    @property
    def passes(self) -> Passes:
        """Return the model's passes: one for each candidate that is compared. Those of the generator are not its."""
        candidates = 1 if self.targets == "random" else self._description().classes - 1
        if self.keep == "best":
            return Passes(candidates + 1, 0)
        return Passes(candidates if candidates > 1 else 0, 0)

    def scaled(self, factor: float) -> AIGAN:
        """Return the attack with eps times `factor`, for which the generator's perturbations are scaled."""
        return self.model_copy(update={"eps": factor * self.eps, "share": factor * self.share})

    def settings(self, classes: int) -> dict[str, Any]:
        """Return for which victim the generator was trained, and the first digits of its digest."""
        victim = self._description().victim
        return {"trained_for": victim.name, "trained_for_digest": victim.digest[:16]}

    def refuse_undefined(self, classes: int, shape: tuple[int, ...], abstains: bool = False) -> None:
        """Raise `AttackError` where the generator is for other classes, images, or another threat model.

        Raises `CheckpointError` for a folder that holds no generator.
        """
        super().refuse_undefined(classes, shape, abstains)
        self._refuse_misfit(self._description(), classes, shape)
        self._refuse_changed()

    def _description(self) -> GeneratorDescription:
        from robust_nas.nets.generator_folder import read_description

        return read_description(Path(self.generator))

    def _refuse_misfit(
        self, found: GeneratorDescription, classes: int | None, shape: tuple[int, ...]
    ) -> None:
        where = f"{self.label}: generator {self.generator}"
        if found.norm != self.norm:
            raise AttackError(
                f"{where}: was trained in {found.norm}, norm is {self.norm!r}; allowed: {found.norm}"
            )
        if not math.isclose(self.eps, self.share * found.eps, rel_tol=SAME_EPS, abs_tol=0.0):
            raise AttackError(
                f"{where}: was trained for eps {found.eps:.9g}, eps is {self.eps:.9g} with share {self.share:.9g}; "
                f"allowed: eps {self.share * found.eps:.9g}, or share={self.eps / found.eps:.9g}, which scales its "
                "perturbations"
            )
        if found.input_shape != tuple(shape):
            raise AttackError(f"{where}: takes images of shape {found.input_shape}, these are {tuple(shape)}")
        if classes is not None and found.classes != classes:
            raise AttackError(f"{where}: aims at {found.classes} classes, the model has {classes}")

    def _refuse_changed(self) -> None:
        now = _digest(self.generator)
        if self.digest and now != self.digest:
            raise AttackError(
                f"{self.label}: generator {self.generator}: has changed since its digest was taken; it was "
                f"{self.digest}, is {now}"
            )

    def refuse_model(self, model: nn.Module) -> None:
        """Raise `AttackError` for another victim than the generator's, where the attack is no transfer."""
        if not self.transfer:
            self._refuse_other_victim(self._description(), model)

    def refuse_new_models(self) -> None:
        """Raise `AttackError` unless the attack is a transfer: no new model is the generator's victim."""
        if not self.transfer:
            raise AttackError(
                f"{self.label}: generator {self.generator}: was trained for one victim, and this job attacks networks "
                "that it has yet to make; transfer=true allows them, as a transfer attack"
            )

    def _refuse_other_victim(self, found: GeneratorDescription, model: nn.Module) -> None:
        from robust_nas.nets.digest import current_digest

        digest = current_digest(model)
        if found.victim.digest != digest:
            raise AttackError(
                f"{self.label}: generator {self.generator}: was trained for another victim, {found.victim.name} of "
                f"digest {found.victim.digest[:16]}; this model's is {digest[:16]} (its layers, "
                "weights and number types decide it); transfer=true allows another one, as a transfer attack"
            )

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the most harmful of the generator's images and of the image itself, `[B, C, H, W]`.

        With `keep="last"` the image itself is no candidate, and a single target takes no pass of the model.
        """
        images, labels = model.images, model.labels
        made = self._load(images.device)
        self._refuse_misfit(made.description, None, tuple(images.shape[1:]))
        if not self.transfer:
            self._refuse_other_victim(made.description, model.predictor.module)
        last_label = model.last_label
        if last_label >= made.description.classes:
            raise AttackError(
                f"{self.label}: label {last_label}; the generator aims at {made.description.classes} classes"
            )
        targets = list(self._targets(made, model))
        if self.keep == "last" and len(targets) == 1:
            return self._candidate(made, images, targets[0])
        best = BestIterate(images, labels)
        clean = model.logits(images) if self.keep == "best" else None
        if clean is not None:
            self._refuse_misfit(made.description, clean.shape[1], tuple(images.shape[1:]))
            best.update(images, clean, margin(clean, labels))
        for aim in targets:
            x = self._candidate(made, images, aim)
            logits = model.verified_logits(x, model.candidate_logits(x), labels)
            best.update(x, logits, margin(logits, labels))
        return best.images if clean is None else model.no_worse(best.images, clean)

    def _targets(self, made: StoredGenerator, model: AttackedModel) -> Iterator[Tensor]:
        """Yield target classes `[B]`, none of which is the label."""
        classes, labels = made.description.classes, model.labels
        if self.targets == "all":
            yield from ((labels + offset) % classes for offset in range(1, classes))
            return
        from robust_nas.attacks.batch_generator import whole_batch  # a torch class: not for who reads options

        batch, rows = whole_batch(model.images, model.generator)
        offsets = torch.randint(
            1, classes, (len(batch),), generator=model.generator, device=model.images.device
        )
        yield (labels + offsets[rows]) % classes

    def _candidate(self, made: StoredGenerator, images: Tensor, aim: Tensor) -> Tensor:
        """Return images `[B, C, H, W]` that aim at classes `[B]`; the generator works in float32 whatever they are."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            delta = self.share * made.network(images.float().contiguous(), aim)
        return project(images + delta.to(images.dtype), images, self.eps, self.norm)

    def _load(self, device: torch.device) -> StoredGenerator:
        """Return the generator on a device; it is read again where its files have changed.

        Raises `AttackError` where they are not those of `digest`.
        """
        from robust_nas.nets.generator_folder import read_generator

        key = (self.generator, str(device))
        stamp = (self.digest, *(_stamp(Path(self.generator) / name) for name in FILES))
        known = _LOADED.get(key)
        if known is not None and known.stamp == stamp:
            return known.generator
        found = read_generator(self.generator, device)
        self._refuse_changed()
        while len(_LOADED) >= MOST_LOADED:
            del _LOADED[next(iter(_LOADED))]
        _LOADED[key] = _Loaded(stamp, found)
        return found


class _Loaded(NamedTuple):
    """A generator that was read, and what its files were then."""

    stamp: tuple[object, ...]
    generator: StoredGenerator


MOST_LOADED = 8
_LOADED: dict[tuple[str, str], _Loaded] = {}  # by folder and device: a training asks for it at every step


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes where a file is replaced; None without the file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _digest(folder: str) -> str:
    """Return 16 hex digits of the SHA-256 of the files of a generator folder.

    Raises `ValueError`, as validators of pydantic have to, for a folder without a generator.
    """
    for name in FILES:
        if existing_file(Path(folder) / name) is None:
            raise ValueError(
                f"generator: {folder}: no generator folder, {name} is missing; "
                "robust-nas attack train MODEL --method ai-gan makes one"
            )
    return files_digest(Path(folder), FILES)

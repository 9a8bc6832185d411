"""The state of an evaluation: its images, checked and in order, and what the attacks have left right so far.

Sanity checks start from it, and attack and judge through it. N images, B of them in a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robust_nas.attacks import Attack, Predictor, ThreatModel
from robust_nas.errors import AttackError
from robust_nas.evaluation.accuracy import Judged, LabelledImages, as_float, chance_of, judge
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.fingerprint import ModelWatch
from robust_nas.evaluation.inference_rule import InferenceRule
from robust_nas.evaluation.inputs import model_errors
from robust_nas.evaluation.rows import Row
from robust_nas.evaluation.seeds import generator_of, seed_of
from robust_nas.evaluation.side_by_side import SideBySide
from robust_nas.evaluation.traces import TraceRecord

DOUBTS = (
    "attacks found where to start"  # the finding on doubts of the toolkit's own attacks about their result
)


@dataclass
class EvaluationState:
    """The state of an evaluation during and after its attacks; what the sanity checks start from."""

    predictor: Predictor
    threat_model: ThreatModel
    attacks: tuple[Attack, ...]  # of the list, those meant for this number of classes; suites in one
    surrogates: tuple[str, ...]  # model folders
    rule: InferenceRule
    batch_size: int
    pixels: Tensor  # [N, C, H, W] in the order of the evaluation, on the CPU
    labels: Tensor  # [N]
    seed: int
    device: torch.device
    classes: int
    clean_logits: Tensor  # [N, K]
    clean_right: Tensor  # [N]
    right: Tensor  # [N] after all attacks, each on its share
    draws: Tensor  # [D, N] right in each draw under all attacks so far
    common: int  # images of the smallest share
    watch: ModelWatch  # of the predictor
    untouched: bool
    not_finite: int  # images with logits that are not
    largest: float = 0.0  # perturbation seen
    full_depth: bool = False  # whether findings may take any number of passes
    rows: list[Row] = field(default_factory=list)
    traces: list[TraceRecord] = field(default_factory=list)
    # The attacks' own doubts about the model, or about what they found (`DOUBTS`).
    flags: dict[str, str | None] = field(default_factory=dict)
    side_by_side: SideBySide | None = None  # of a defended model, after the attacks

    @property
    def chance(self) -> float:
        """Return what a constant answer gets right: the share of the largest class, or 1/K where that is more."""
        return chance_of(self.labels, self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return channels, height and width of the images."""
        return tuple(self.pixels.shape[1:])

    @property
    def limits(self) -> Mapping[str, Any]:
        """Return norm and eps of the threat model, as options of an attack."""
        return {"norm": self.threat_model.norm, "eps": self.threat_model.eps}

    @property
    def eot(self) -> int:
        """Return the passes per gradient that a check's attack takes: one, or the rule's number for a random model."""
        return self.rule.eot if self.predictor.random else 1

    @property
    def judging_passes(self) -> int:
        """Return the passes of one image's judgement, with the control of a random rule."""
        samples = self.predictor.samples
        return 1 if samples is None else 2 * samples * self.rule.draws

    @property
    def strongest(self) -> Attack | None:
        """Return the last iterative attack of the list without targets, or None."""
        untargeted = [attack for attack in self.attacks if attack.iterative and not attack.targeted]
        return untargeted[-1] if untargeted else None

    def guided_by(self, *guides: str) -> bool:
        """Return whether an attack of the list is led by one of these (`Attack.guided_by`), but for its own twin."""
        parts = [part for attack in self.attacks for part in attack.parts() if not attack.on_twin]
        return any(part.guided_by in guides for part in parts)

    def asks_for(self, *, decisions: bool) -> bool:
        """Return whether a query attack of the list sees decisions alone; or, with False, whether one sees scores."""
        parts = [part for attack in self.attacks for part in attack.parts()]
        return any(part.guided_by == "queries" and (part.access == "decision") == decisions for part in parts)

    @property
    def nothing_to_attack(self) -> str | None:
        """Return why attacks on the clean answers say nothing, where those are not above chance; or None."""
        from robust_nas.statistics.proportions import wilson

        right, total = int(self.clean_right.sum()), len(self.clean_right)
        low, _ = wilson(right, total)
        if low > self.chance:
            return None
        if right / total > self.chance:
            return (
                f"{right} of {total} images right do not show a clean accuracy above chance "
                f"({self.chance:.3g}): evaluate more images"
            )
        return "the clean accuracy is not above chance: there is nothing to attack"

    @property
    def sees_margin(self) -> bool:
        """Return whether a gradient attack of the list has a loss that still moves where the model is confident."""
        parts = [part for attack in self.attacks for part in attack.parts()]
        return any(part.guided_by == "gradient" and not part.saturates for part in parts)

    def select(self, selection: Selection) -> Tensor:
        """Return indices into the order: of all images, of those right as they are, or right after all attacks."""
        if selection == "all":
            return torch.arange(len(self.labels))
        return (self.clean_right if selection == "right" else self.right).nonzero().squeeze(1)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images float32 in 0..1 `[B, C, H, W]` and labels `[B]`, on the device."""
        return as_float(self.pixels[indices]).to(self.device), self.labels[indices].to(self.device)

    def attempt(
        self, attack: Attack, indices: Tensor, cost: Cost, name: str, *, on: Predictor | None = None
    ) -> Judged:
        """Return the answers of the inference rule on the images after an attack; passes are counted.

        `on` is attacked, and judges, in the place of the evaluated predictor.
        """
        predictor = on or self.predictor
        parts = []
        for number, part in enumerate(torch.split(indices, self.batch_size)):
            x, y = self.batch(part)
            generator = generator_of(self.device, self.seed, "finding", name, number)
            with model_errors(f"{name}: {attack.label} fails on images", x):
                result = attack.run(predictor, x, y, generator)
                judged = judge(
                    predictor,
                    result.images,
                    y,
                    draws=self.rule.draws,
                    seed=seed_of(self.seed, "judge finding", name, number),
                )
            cost.passes += result.forwards + result.backwards + judged.forwards
            cost.flags.update(result.flags)
            parts.append(judged)
        return Judged.joined(parts)

    def flips(self, indices: Tensor, cost: Cost, name: str) -> int:
        """Return how many images a random rule gets wrong in fresh draws without any attack; else 0."""
        if not self.predictor.random:
            return 0
        x, y = self.batch(indices)
        seed = seed_of(self.seed, "judge control", name)
        judged = judge(self.predictor, x, y, draws=self.rule.draws, seed=seed)
        cost.passes += judged.forwards
        return int((~judged.right).sum())


def check_images(images: LabelledImages) -> tuple[Tensor, Tensor]:
    """Return pixels and labels on the CPU. Raise `AttackError` for what cannot be evaluated on."""
    pixels, labels = images.pixels, images.labels
    if not (pixels.dtype == torch.uint8 or pixels.is_floating_point()) or pixels.dim() != 4:
        raise AttackError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; "
            "uint8, or float in 0..1, [images, channels, height, width] is needed"
        )
    if labels.dtype != torch.int64 or labels.dim() != 1 or len(labels) != len(pixels):
        raise AttackError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {len(pixels)} images; "
            "int64 [images] is needed"
        )
    if len(labels) == 0 or pixels.numel() == 0:
        raise AttackError("no images to evaluate on")
    if pixels.is_floating_point():
        low, high = (float(limit) for limit in pixels.detach().aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN fails it too
            hint = "; divide by 255, or give them as uint8" if low >= 0 and 1 < high <= 255 else ""
            raise AttackError(
                f"images reach from {low:.6g} to {high:.6g}; pixels lie in 0..1, without NaN{hint}"
            )
    if int(labels.min()) < 0:
        raise AttackError(f"label {int(labels.min())}; classes are counted from 0")
    return pixels.detach().cpu(), labels.cpu()

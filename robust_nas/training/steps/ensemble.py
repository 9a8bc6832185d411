"""Independent particles: every network of an ensemble is trained for itself, by the recipe's loss.

    g_i = d/dth_i L(f(.; th_i), x, y),    i = 1..n

The images and their augmentation are the same for all particles, start weights and the draws of the loss are not; an
inner attack is made on each particle by itself, in eval mode, and the particle then trains on its own images. This is a
plain (deep) ensemble, the control of methods that couple particles. The accuracy that is logged is that of the mean
softmax, with each particle on its own images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from robust_nas.lazy import torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import Loss, to_float32
from robust_nas.training.particles import ParticleStepOptions
from robust_nas.training.step import Measured, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor, nn


class IndependentParticles(ParticleStepOptions):
    """Every particle of an ensemble by itself: a plain ensemble."""

    name: Literal["ensemble"] = "ensemble"

    def refuse(self, loss: Loss) -> None:
        """Raise `ValueError` for a loss that is bound to one network and its images."""
        if loss.fits_parts:
            raise ValueError(
                f"step 'ensemble' trains each particle by itself, but loss {loss.label!r} is bound to a "
                "whole network; it needs one that is not, such as pgd-at"
            )

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training."""
        return IndependentStep(self, training, hooks)


class IndependentStep(TrainingStep):
    """The step in its running form; it has no state."""

    def __init__(
        self, options: IndependentParticles, training: TrainingContext, hooks: Sequence[TrainingHook]
    ) -> None:
        super().__init__(training, hooks)
        members = options.particles_of(training.network).members
        self.particles = [training.of(member) for member in members]

    def clipped_together(self) -> list[nn.Module]:
        """Return the particles: one never shortens the gradient of another."""
        return [particle.network for particle in self.particles]

    def gradients(self, batch: Batch) -> Measured:
        """Leave each particle's gradients in it, one particle after the other; the logged loss is their mean."""
        losses: list[Tensor] = []
        answers: list[Tensor] = []
        for particle in self.particles:
            value = particle.value(batch.images, batch.labels)
            loss = batch.share * value.loss
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            answers.append(to_float32(value.logits.detach()).softmax(1))
        self.penalise(batch)
        answer = torch.stack(answers).mean(0).argmax(1)
        return Measured(torch.stack(losses).mean(), (answer == batch.labels).sum())

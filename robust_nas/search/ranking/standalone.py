"""Short trainings of single candidates on batches common to all, scored by their adversarial training loss.

    score(a) = - 2 / T  sum_{t = T/2 + 1}^{T}  L(f_a(x_t + delta_t), y_t)

t counts SGD steps from a fresh network whose weights follow from the seed; batches x_t, augmentation and the noise of
the attack are the same for every candidate (`batches.py`). The sum of training losses as a score: Ru et al. (NeurIPS
2021), there without an attack. Our own measurement, NAS-Bench-201 under adversarial training, one sample of 45: the
training loss ranks, validation accuracy on a few hundred images does not, and fewer than 200 steps rank backwards.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from robust_nas.attacks.fgsm_rs import FGSMRS
from robust_nas.errors import DivergenceError
from robust_nas.search.ranking.batches import BatchTraining, CommonBatches, LossCurve, Material
from robust_nas.spaces import CellArchitecture, CellSpace
from robust_nas.training.loss import Loss
from robust_nas.training.losses import LOSSES
from robust_nas.training.losses.pgd_at import PGDAT

LEAST_STEPS = 200  # with fewer, our own measurement found rankings that are backwards

Steps = Annotated[int, Field(ge=LEAST_STEPS)]


def gentle(eps: float = 4 / 255) -> PGDAT:
    """Return adversarial training by one step from a random start, with batch norm by the batch at hand."""
    return PGDAT(attack=FGSMRS(eps=eps, bn="batch"))


class StandaloneTraining(BatchTraining):
    """A short training of one candidate."""

    loss: Annotated[Loss, LOSSES.field()] = gentle()

    def score(
        self, architecture: CellArchitecture, steps: int, material: Material, batches: CommonBatches, space: CellSpace
    ) -> float | None:
        """Return minus the mean training loss of the last half of `steps`; None where the training diverges."""
        try:
            losses = self.losses(architecture, steps, material, batches, space)
        except DivergenceError:
            return None
        last = losses[steps // 2 :]
        return -sum(last) / len(last)

    def losses(
        self, architecture: CellArchitecture, steps: int, material: Material, batches: CommonBatches, space: CellSpace
    ) -> list[float]:
        """Return the training loss of every step. Raises `DivergenceError`."""
        from robust_nas.layers.depthwise import quickened
        from robust_nas.nets import build_network, channels_last
        from robust_nas.nets.single_path import selected

        size = self.size(space)
        small = architecture.resized(size.cells, size.channels)
        pixels = batches.images.pixels
        shape: Any = tuple(pixels.shape[1:])
        whole = build_network(
            small, input_shape=shape, classes=material.classes, mean=material.mean, std=material.std, seed=material.seed
        ).to(pixels.device)
        network = channels_last(selected(whole, small, small)).train()
        parameters = list(network.parameters())
        optimiser = self.optimiser(parameters)
        curve = LossCurve(f"{architecture.name}, a training of {steps} steps")
        with quickened(network):
            for step in range(1, steps + 1):
                batch = batches(step)
                loss = self.present_loss(self.loss, step, steps)
                value = loss(network, batch.images, batch.labels, batch.generator)
                value.loss.backward()  # type: ignore[no-untyped-call]
                curve.add(value.loss)
                self.move(optimiser, parameters, self.factor(step, steps))
        return curve.read()

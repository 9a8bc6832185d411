"""Short trainings of single candidates on batches common to all, scored by their adversarial training loss.

    score(a) = - 2 / T  sum_{t = T/2 + 1}^{T}  L(f_a(x_t + delta_t), y_t)

t counts SGD steps from a fresh network whose weights follow from the seed; batches x_t, augmentation and the noise of
the attack are the same for every candidate (`batches.py`). The sum of training losses as a score: Ru et al. (NeurIPS
2021), there without an attack. With a prototype on NAS-Bench-201 the training loss ranks where validation
accuracy on a few hundred images does not, and fewer than 200 steps rank backwards.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from robust_nas.attacks.fgsm_rs import FGSMRS
from robust_nas.config import Count
from robust_nas.errors import DivergenceError
from robust_nas.search.ranking.batches import BatchTraining, CommonBatches, LossCurve
from robust_nas.search.ranking.method import RankingContext
from robust_nas.spaces import CellArchitecture
from robust_nas.training.loss import Loss
from robust_nas.training.losses import loss_of_steps
from robust_nas.training.losses.pgd_at import PGDAT

LEAST_STEPS = 200
GENTLE = PGDAT(
    attack=FGSMRS(eps=4 / 255, bn="batch")
)  # one step from a random start; batch norm by the batch


def _long_enough(steps: int) -> int:
    if steps < LEAST_STEPS:
        raise ValueError(
            f"got {steps} steps; at least {LEAST_STEPS} are needed, as shorter trainings rank backwards"
        )
    return steps


Steps = Annotated[Count, AfterValidator(_long_enough)]


class StandaloneTraining(BatchTraining):
    """A short training of one candidate."""

    loss: Annotated[Loss, loss_of_steps()] = GENTLE  # of the training

    def training_score(
        self, candidate: CellArchitecture, steps: int, batches: CommonBatches, context: RankingContext
    ) -> float | None:
        """Return minus the mean training loss of the last half of `steps`; None where the training diverges.

        Raises `ValueError` for fewer than 200 steps.
        """
        _long_enough(steps)
        try:
            losses = self.training_losses(candidate, steps, batches, context)[steps // 2 :]
        except DivergenceError:
            return None
        return -sum(losses) / len(losses)

    def training_losses(
        self, candidate: CellArchitecture, steps: int, batches: CommonBatches, context: RankingContext
    ) -> list[float]:
        """Return the training loss of every step. Raises `DivergenceError`."""
        from robust_nas.layers.depthwise import quickened
        from robust_nas.nets import build_network, channels_last
        from robust_nas.nets.single_path import selected

        small, pixels = self.sized(candidate), batches.images.pixels
        shape: Any = tuple(pixels.shape[1:])
        built = build_network(
            small,
            input_shape=shape,
            classes=context.classes,
            mean=context.mean,
            std=context.std,
            seed=context.seed,
        )
        whole = channels_last(built.to(pixels.device))
        network = selected(whole, small, small).train()
        optimiser = self.optimiser(list(network.parameters()))
        curve = LossCurve(f"{candidate.name}, a training of {steps} steps")
        with quickened(network):
            for step in range(1, steps + 1):
                images, labels, generator = batches(step)
                value = self.loss_at(self.loss, step, steps)(network, images, labels, generator)
                value.loss.backward()  # type: ignore[no-untyped-call]
                curve.add(value.loss)
                self.move(optimiser, self.factor(step, steps))
        return curve.read()

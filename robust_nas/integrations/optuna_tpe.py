"""TPE, the tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, NIPS 2011), by Optuna's `TPESampler`.

`startup` random trials; then the value with the largest ratio of two densities, of the good trials and of the others,
among `candidates` draws from the first, for every parameter by itself. With several objectives Optuna's
multi-objective TPE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from robust_nas.config import Count
from robust_nas.integrations.optuna_strategy import OptunaStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class TPE(OptunaStrategy):
    """Optuna's TPE."""

    name: Literal["tpe"] = "tpe"
    startup: Count = 20  # random candidates before the model
    candidates: Count = 24  # samples of the model of which the best is proposed

    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import TPESampler

        return TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            seed=seed,
        )

"""NNI's `Random`: draws every choice uniformly, and no network twice."""

from __future__ import annotations

from typing import Any, Literal

from robust_nas.integrations.nni_sampled import NNISampled


class NNIRandom(NNISampled):
    """Random search by NNI."""

    name: Literal["nni:random"] = "nni:random"

    def theirs(self, seed: int) -> Any:
        """Return NNI's strategy."""
        from robust_nas.integrations.nni_proposals import Random

        return Random(seed=seed)

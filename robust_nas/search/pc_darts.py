"""PC-DARTS (Xu et al., ICLR 2020), with the losses on attacked images: partial channels and edge normalisation.

    edge(x) = beta_e shuffle([sum_o softmax(alpha_e)_o o(x[:c]),  x[c:]]),    c = C / k     (`nets/partial_supernet.py`)
    node    = sum of its edges,   beta = softmax over the edges into the node

    alpha, beta <- Adam(d/d(alpha, beta) L(w, alpha, beta; v', t))         v' = attack(w, alpha, beta; v, t)
    w           <- SGD(w, d/dw L(w, alpha, beta; x', y))                   x' = attack(w, alpha, beta; x, y)

In the first `warmup_epochs` the weights alone move, and the alphas' half is not attacked. The architecture is DARTS's
of the weights beta_e softmax(alpha_e): an edge ranks by beta_e times its best operation. Read in the authors' code
(notes of it, not the text): k = 4, the shuffle, the 2x2 max pooling of the rest, softmax(beta) per node, 15 of 50
epochs. E edges of a cell, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Count, CountOrZero
from robust_nas.search.one_shot.strategy import OneShotStrategy
from robust_nas.spaces import CellSpace

if TYPE_CHECKING:
    from torch import Tensor, nn


BETA = "beta"  # the last word of the name of an edge parameter


def usual_warmup(options: Mapping[str, Any]) -> int:
    """Return 15 of 50 epochs, as published, or as many of fewer or more."""
    epochs: int = options.get("epochs", 50)  # absent where it was refused
    return 15 * epochs // 50


class PCDARTS(OneShotStrategy):
    """Adversarial PC-DARTS of first order (`docs/methods/pc-darts.md`)."""

    shares_weights: ClassVar[bool] = False  # its operations have a part of the channels

    name: Literal["pc-darts"] = "pc-darts"
    k: Annotated[Count, Field(ge=2)] = 4  # operations see the first C / k channels
    warmup_epochs: CountOrZero = Field(default_factory=usual_warmup)  # weights alone; 15 of 50

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether no loss of the weights does it."""
        return self.weights.loss is None

    def supernet_class(self) -> Callable[..., nn.Module]:
        """Return what makes the supernet of partial channels; it raises `ConfigError` for channels that k leaves."""
        from robust_nas.nets.partial_supernet import PartialSupernet

        return partial(PartialSupernet, k=self.k)

    def architecture_parameters(self, supernet: nn.Module) -> dict[str, nn.Parameter]:
        """Return the alphas `[E, O]` by kind, then the betas `[E]`."""
        own: Any = supernet
        betas = {f"{kind} {BETA}": beta for kind, beta in own.betas.items()}
        return {**super().architecture_parameters(supernet), **betas}

    def edge_logits(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the alphas of every kind."""
        return {kind: alphas[kind] for kind in space.kinds}

    def source_weights(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, list[list[float]]]:
        """Return softmax(beta) over the edges of every node per kind, by source."""
        from robust_nas.nets.partial_supernet import shares_of_sources

        betas = {kind: alphas[f"{kind} {BETA}"] for kind in space.kinds}
        return {
            kind: [shares.tolist() for shares in shares_of_sources(space, beta)]
            for kind, beta in betas.items()
        }

    def derivation_weights(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return beta softmax(alpha) `[E, O]` of every kind."""
        from robust_nas.nets.partial_supernet import node_softmax

        return {
            kind: node_softmax(space, alphas[f"{kind} {BETA}"])[:, None] * weights
            for kind, weights in self.edge_weights(space, alphas).items()
        }

"""A supernet that computes one operation an edge, chosen for each pass (GDAS, Dong and Yang, CVPR 2019).

    edge(x) = w_c c(x),    c the chosen operation of the edge, w `[O]` its weights

The choice is that of a kind, for all its cells. What was not chosen is neither computed nor attacked, its weights have
no gradient, and its batch norms stay. Parameters and names are those of `Supernet`. E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from robust_nas.nets.supernet import Supernet, SupernetCell

EdgeWeights = Callable[[str, Tensor], Tensor]  # of a kind and its alphas `[E, O]`: the weights `[E, O]`


class SampledSupernet(Supernet):
    """The supernet of which a sample is computed; before the first sample, the whole mixture."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.weigh: EdgeWeights | None = None
        self.samples = 0  # a number, by which a kept trace of an attack sees that the graph is another

    def take(self, chosen: Mapping[str, Sequence[int]], weigh: EdgeWeights) -> None:
        """Compute from now on the operation `chosen[kind][edge]` on every edge, weighted by `weigh`."""
        for cell in cast("list[SupernetCell]", self.cells):
            cell.chosen = tuple(chosen[cell.kind])
        self.weigh = weigh
        self.samples += 1

    def edge_weights(self) -> dict[str, Tensor]:
        """Return the weights `[E, O]` per kind, of which the chosen ones are used, `aggregated`."""
        if self.weigh is None:
            return super().edge_weights()
        return self.aggregated({kind: self.weigh(kind, alpha) for kind, alpha in self.alphas.items()})

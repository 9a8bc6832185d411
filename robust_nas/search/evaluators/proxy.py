"""Score a candidate by a proxy of its untrained network, on one batch of the search's images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from robust_nas.config import Count
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.proxies import PROXIES
from robust_nas.search.proxies.proxy import Proxy
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture


class ProxyScore(Evaluator):
    """The value of a proxy, negated where a lower one is better; the same weights seed and images for all."""

    columns: ClassVar[tuple[str, ...]] = ("proxy",)

    name: Literal["proxy"] = "proxy"
    proxy: Annotated[Proxy, PROXIES.field()]  # that scores a candidate
    images: Count = 64  # of the search, chosen by its seed; all of them where there are fewer

    @property
    def label(self) -> str:
        """Return the proxy's name."""
        return f"proxy {self.proxy.label}"

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the proxy's value of the candidate's network at its initialisation."""
        import torch

        from robust_nas.nets import build_network

        batch = context.images.draw(self.images, context.seed)
        network = build_network(
            candidate,
            input_shape=context.input_shape,
            classes=context.classes,
            mean=context.mean,
            std=context.std,
            seed=context.seed,
        ).to(batch.pixels.device)
        generator = torch.Generator(batch.pixels.device).manual_seed(context.seed)
        labels = batch.labels if self.proxy.needs_labels else None
        value = self.proxy.score(network, batch.float(), labels, generator)
        return Scored(value if self.proxy.higher_is_better else -value, {"proxy": value})

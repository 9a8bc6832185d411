"""GDAS (Dong and Yang, CVPR 2019), with the losses on attacked images. A step, with h and p `[E, O]` for each kind:

    p = softmax((log softmax(alpha) + G) / tau),   G = -log(e), e exponential: Gumbel noise
    h = one_hot(arg max p) + p - p.detach()        (a hard sample, differentiated as p: straight through)
    edge(x) = h_c c(x),   c = arg max p            (one operation an edge is computed)

    alpha <- Adam(alpha, d/dalpha L(w, h; v', t))             v' = attack(w, h; v, t)
    w     <- SGD(w, d/dw L(w, h'; x', y))                     x' = attack(w, h'; x, y)

h and h' are two samples of the step's first alphas, as in the authors' code, which draws one for each of its two
forward passes and moves the weights first. tau falls linearly over the epochs. Read there (notes of it, not the text):
only the chosen operation is computed, and the gradient reaches alpha through h_c, which depends on all alphas of the
edge. Its later form also adds the numbers h_o of the others, which are zero, to the edge; ours, like its first form,
does not. From memory: the linear tau, 10 to 0.1, and the two samples. E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, cast

from pydantic import model_validator

from robust_nas.config import Positive
from robust_nas.lazy import torch
from robust_nas.search.one_shot.strategy import Draw, OneShotStrategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.nets.sampled_supernet import SampledSupernet
    from robust_nas.search.one_shot.steps import OneShotSearch


class Sample(NamedTuple):
    """A hard sample per kind: the Gumbel noise `[E, O]`, the chosen operations `[E]` as numbers, and one-hot."""

    noise: dict[str, Tensor]
    chosen: dict[str, list[int]]
    hard: dict[str, Tensor]
    tau: float

    def straight_through(self, kind: str, alpha: Tensor) -> Tensor:
        """Return h `[E, O]`: the one-hot choice, with the gradient of the relaxed one."""
        p = relaxed(alpha, self.noise[kind], self.tau)
        return self.hard[kind] + (p - p.detach())

    def constant(self, kind: str, alpha: Tensor) -> Tensor:
        """Return the one-hot choice `[E, O]` without a gradient."""
        return self.hard[kind]


def relaxed(alpha: Tensor, noise: Tensor, tau: float) -> Tensor:
    """Return p, the Gumbel softmax `[E, O]`."""
    return ((alpha.log_softmax(1) + noise) / tau).softmax(1)


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return Gumbel noise of a tensor's shape, always finite."""
    exponential = torch.empty_like(like).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()


class GDAS(OneShotStrategy):
    """Adversarial GDAS: one sampled operation an edge in every pass (`docs/methods/gdas.md`)."""

    mixes: ClassVar[bool] = False
    reads_back: ClassVar[int] = 1  # the choices of both samples, which the host has to know

    name: Literal["gdas"] = "gdas"
    tau_max: Positive = 10.0  # of the first epoch
    tau_min: Positive = 0.1  # of the last epoch

    @model_validator(mode="after")
    def _temperature_falls(self) -> Self:
        if self.tau_min > self.tau_max:
            raise ValueError(f"tau_min is {self.tau_min:g}, more than tau_max {self.tau_max:g}")
        return self

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether no loss of the weights does it."""
        return self.weights.loss is None

    def supernet_class(self) -> Callable[..., nn.Module]:
        """Return the class of the supernet of samples."""
        from robust_nas.nets.sampled_supernet import SampledSupernet

        return SampledSupernet

    def tau(self, epoch: int) -> float:
        """Return the temperature of an epoch."""
        return self.tau_max - (self.tau_max - self.tau_min) * epoch / max(1, self.epochs - 1)

    def samples(self, search: OneShotSearch, count: int) -> list[Sample]:
        """Return samples of the present alphas, drawn by the search's generator; the choices are read back once."""
        alphas, tau = search.alphas, self.tau(search.epoch)
        drawn = [
            {kind: gumbel(alpha.detach(), search.generator) for kind, alpha in alphas.items()}
            for _ in range(count)
        ]
        best = torch.stack(
            [
                torch.cat(
                    [relaxed(alpha.detach(), noise[kind], tau).argmax(1) for kind, alpha in alphas.items()]
                )
                for noise in drawn
            ]
        )
        sizes = [len(alpha) for alpha in alphas.values()]
        found = []
        for noise, numbers, row in zip(drawn, best.tolist(), best, strict=True):
            chosen, hard, start = {}, {}, 0
            for (kind, alpha), size in zip(alphas.items(), sizes, strict=True):
                chosen[kind] = numbers[start : start + size]
                places = row[start : start + size, None]
                hard[kind] = torch.zeros_like(alpha.detach()).scatter_(1, places, 1.0)
                start += size
            found.append(Sample(noise, chosen, hard, tau))
        return found

    def step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move the alphas under one sample, then the weights under another, each batch attacked under its own."""
        supernet = cast("SampledSupernet", search.supernet)
        for_alphas, for_weights = self.samples(search, 2)
        supernet.take(for_alphas.chosen, for_alphas.straight_through)
        search.mark_changed()
        (batch,) = draw("alphas")
        found = self.alpha_gradient(search, batch, batch)
        search.alpha_step(found.gradient)
        supernet.take(for_weights.chosen, for_weights.constant)
        search.mark_changed()
        loss, _ = search.weight_step(*draw("weights"))
        return {"loss_weights": loss, **found.measured}

    def settle(self, search: OneShotSearch) -> None:
        """Take the operation with the largest alpha on every edge."""
        best = {kind: alpha.detach().argmax(1) for kind, alpha in search.alphas.items()}
        hard = {
            kind: torch.eye(alpha.shape[1]).to(alpha)[best[kind]] for kind, alpha in search.alphas.items()
        }
        chosen = {kind: places.tolist() for kind, places in best.items()}
        cast("SampledSupernet", search.supernet).take(chosen, lambda kind, alpha: hard[kind])

    def warm_up_step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move the weights alone, under a sample."""
        (sample,) = self.samples(search, 1)
        cast("SampledSupernet", search.supernet).take(sample.chosen, sample.constant)
        search.mark_changed()
        return super().warm_up_step(search, draw)

    def note(self, record: Mapping[str, Any]) -> str:
        """Return the temperature and the losses of the last record, for progress."""
        return f"tau {self.tau(record['epoch']):.2g}, {super().note(record)}"

"""CSTAR-style low-rank training under attack (Phan et al., AAAI 2023). Our reconstruction: its text was not available.

Known of it: low rank and robustness in one framework, Tucker-2 projections, ranks determined globally (abstract and a
summary of its algorithms). The splitting is inferred from these and from the group's earlier work (ADMM, CVPR 2021):

    min_W  E max_{||d|| <= eps} L(f_W(x + d), y)   s. t.   W_l = Z_l,  rank(Z_l) <= r_l,  weights(r) <= weights / ratio

    every step:   W by SGD on the adversarial loss + rho / 2 sum_l ||W_l - Z_l + U_l||^2
    now and then: r from the spectra of W + U over all layers (until they are frozen),
                  Z = projection of W + U to ranks r,   U = U + W - Z
    every epoch:  rho = what its learning rate asks for,  U = U rho_before / rho  (rho U is the multiplier)
    in the end:   W = projection of W, in factors, trained on

Validation, and the choice of the epoch that is kept, see the projected network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.compression.layers import survey
from robust_nas.compression.options import CSTAR
from robust_nas.compression.ranks import Limits, global_ranks
from robust_nas.compression.tucker import Ranks, factorised_layer, project
from robust_nas.errors import CompressionError
from robust_nas.layers.factorised import LayerForm, replace_module
from robust_nas.training import TrainingHook

MAX_PULL = 3.0  # 5 % of the way to the copy is left; more would only make the steps unstable


class ADMM(TrainingHook):
    """The low-rank copies Z, the scaled multipliers U, and the ranks of a network in training."""

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        ratio: float,
        options: CSTAR,
        rhos: Sequence[float],
    ) -> None:
        """Begins with U = 0 and Z the projection of the weights; `rhos` are the epochs', the last one stays.

        Raises:
            CompressionError: a ratio out of reach.
        """
        self.options, self.ratio, self.rhos = options, ratio, tuple(rhos)
        self.layers = survey(network, input_shape)
        self.weights = {layer.name: layer.module.weight for layer in self.layers}
        self.frozen_from = frozen_from(options)
        self.rho = self.rhos[0]
        self.ranks = self._determine(self.weights)
        if not self.ranks:
            raise CompressionError(
                f"ratio: got {ratio:g}; no layer of this network is smaller in factors; a larger ratio is needed"
            )
        self.u = {layer.name: torch.zeros_like(layer.module.weight) for layer in self.layers}
        self.z = {name: self.weights[name].detach().clone() for name in self.weights}
        self._project()

    def _determine(self, weights: Mapping[str, Tensor]) -> dict[str, Ranks]:
        return global_ranks(self.layers, self.ratio, limits(self.options), weights)

    def _project(self) -> None:
        for name, ranks in self.ranks.items():
            self.z[name] = project(self.weights[name] + self.u[name], ranks, self.options.sweeps)

    def penalty(self) -> Tensor:
        """The augmented Lagrangian's part: rho / 2 sum ||W - Z + U||^2 over the layers that have ranks."""
        terms = [(self.weights[name] - self.z[name] + self.u[name]).square().sum() for name in self.ranks]
        return self.rho / 2 * torch.stack(terms).sum()

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Renews ranks, Z, U and rho where it is due; returns the residuals ||W - Z|| / ||W||, the rho and ranks."""
        residual, rho = self.residuals(), self.rho
        if (epoch + 1) % self.options.update_every == 0:
            with torch.no_grad():
                if epoch < self.frozen_from:
                    moved = {name: weight + self.u[name] for name, weight in self.weights.items()}
                    ranks = self._determine(moved)
                    for name in set(self.ranks) - set(ranks):  # a layer that is dense from now on is free
                        self.u[name].zero_()
                    self.ranks = ranks
                self._project()
                for name in self.ranks:
                    self.u[name] += self.weights[name] - self.z[name]
        self.rho = self.rhos[min(epoch + 1, len(self.rhos) - 1)]
        with torch.no_grad():
            for u in self.u.values():
                u *= rho / self.rho
        return {
            "primal_residual": residual["all"],
            "primal_residual_max": max(value for name, value in residual.items() if name != "all"),
            "rho": rho,
            "ranks": {name: list(ranks) for name, ranks in self.ranks.items()},
        }

    def residuals(self) -> dict[str, float]:
        """||W - Z|| / ||W|| of every layer that has ranks, and of all of them."""
        with torch.no_grad():
            squares = {
                name: torch.stack(
                    [(self.weights[name] - self.z[name]).square().sum(), self.weights[name].square().sum()]
                )
                for name in self.ranks
            }
            squares["all"] = torch.stack(list(squares.values())).sum(0)
            return {name: float((both[0] / both[1]).sqrt()) for name, both in squares.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the weights are their projections to the present ranks."""
        saved = {name: self.weights[name].detach().clone() for name in self.ranks}
        try:
            with torch.no_grad():
                for name, ranks in self.ranks.items():
                    self.weights[name].copy_(project(self.weights[name], ranks, self.options.sweeps))
            yield
        finally:
            with torch.no_grad():
                for name, weight in saved.items():
                    self.weights[name].copy_(weight)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the weights."""
        return {
            "z": dict(self.z),
            "u": dict(self.u),
            "rho": self.rho,
            "ranks": {name: list(ranks) for name, ranks in self.ranks.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        for own, stored in ((self.z, state["z"]), (self.u, state["u"])):
            if {name: tuple(t.shape) for name, t in stored.items()} != {
                name: tuple(t.shape) for name, t in own.items()
            }:
                raise ValueError("the low-rank copies of the checkpoint are of other layers")
            for name, tensor in stored.items():
                own[name] = tensor.to(self.weights[name], copy=True)
        self.rho = float(state["rho"])
        self.ranks = {name: tuple(ranks) for name, ranks in state["ranks"].items()}


def limits(options: CSTAR) -> Limits:
    """What ranks may be, and which layers have none."""
    return Limits(options.rank_multiple, options.min_rank, options.skip_ends)


def rho_schedule(options: CSTAR, rates: Sequence[float], steps: int, momentum: float) -> list[float]:
    """Every epoch's rho, at whose learning rate the penalty alone draws W to Z by e^-pull between two updates.

    `rates` are the mean rates of the epochs of `steps` each. The pull grows by `rho_growth` an update, to MAX_PULL. A
    rho that ignored the rate would let go of the weights as the rate falls.
    """
    every = options.update_every
    return [
        min(options.pull * options.rho_growth ** (epoch // every), max(options.pull, MAX_PULL))
        * (1 - momentum)
        / (rate * steps * every)
        for epoch, rate in enumerate(rates)
    ]


def frozen_from(options: CSTAR) -> int:
    """The first epoch at whose end the ranks stay as they are; the last one at the latest."""
    return min(round(options.freeze * options.epochs), options.epochs - 1)


def factorise(
    network: nn.Module, ranks: Mapping[str, Ranks], sweeps: int = 5
) -> tuple[nn.Module, tuple[LayerForm, ...]]:
    """A copy in factors of these ranks, and the forms that rebuild it; exact where the weights have these ranks."""
    own = copy.deepcopy(network)
    forms = []
    for name, found in ranks.items():
        layer: Any = own.get_submodule(name)
        replace_module(own, layer, factorised_layer(layer, found, sweeps))
        forms.append(LayerForm(name, "tucker-2" if len(found) == 2 else "low-rank", tuple(found)))
    return own, tuple(forms)

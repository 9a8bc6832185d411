"""CSTAR-style low-rank training under attack (Phan et al., AAAI 2023). Our reconstruction: its text was not available.

Known of it: low rank and robustness in one framework, Tucker-2 projections, ranks determined globally (abstract and a
summary of its algorithms). The splitting is inferred from these and from the group's earlier work (ADMM, CVPR 2021):

    min_W  E max_{||d|| <= eps} L(f_W(x + d), y)   s. t.   W_l = Z_l,  rank(Z_l) <= r_l,  weights(r) <= weights / ratio

    every step:   W by SGD on the adversarial loss + rho / 2 sum_l ||W_l - Z_l + U_l||^2
    now and then: r from the spectra of W + U over all layers (until they are frozen),
                  Z = projection of W + U to ranks r,   U = U + W - Z
    every epoch:  rho = what its learning rate asks for,  U = U rho_before / rho  (rho U is the multiplier)
    in the end:   W = projection of W, in factors, trained on

Validation, and so the choice of the kept epoch, sees the projected network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from robust_nas import figures
from robust_nas.compression.compressor import Compressor, Different
from robust_nas.compression.finetune import StepJob, Tuning, changed_recipe, finetune, renamed
from robust_nas.compression.layers import survey
from robust_nas.compression.ranks import (
    Limits,
    full_ranks,
    global_ranks,
    refuse_ratio,
    stored_ranks,
    uniform_ranks,
    usual_ratio,
)
from robust_nas.compression.section import key_of
from robust_nas.compression.tucker import Ranks, factorised_layer, project
from robust_nas.config import Count, Fraction01, Positive
from robust_nas.errors import CompressionError
from robust_nas.lazy import torch
from robust_nas.run_folder import Run, write_atomic
from robust_nas.training import LOSSES, Cosine, Loss, TrainingHook

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.compression.context import Candidate, CompressionContext
    from robust_nas.layers.factorised import LayerForm

MAX_PULL = 3.0  # leaves 5 % of the distance to the copy; more would only make the steps unstable
LOW_RANK = "low-rank.safetensors"
Ratio = Annotated[Positive, Field(gt=1)]
Baseline = Literal["truncate", "truncate-short", "uniform"]


class CSTAR(Compressor):
    """Low-rank training under attack by ADMM, then factors and fine-tuning, one network a ratio (CSTAR-style).

    A ratio counts the weights of convolutions and linear layers. Every `update_every` epochs the low-rank copy and the
    multipliers are renewed. Between two updates the penalty alone would draw the weights to their copy by e^-pull,
    whatever the number of images and the learning rate; the pull grows by `rho_growth` at every update. Ranks are
    renewed until the share `freeze` of the epochs. Learning rates that are None: the recipe's, half of it in
    fine-tuning, which uses `loss` (None: the recipe's). Baselines at the same ratio: `truncate`, the same ranks without
    ADMM, and `uniform`, the same share of rank everywhere, both fine-tuned for as many epochs as CSTAR takes in all;
    `truncate-short` for `finetune_epochs` alone.
    """

    first: ClassVar[bool] = True  # its ratio and its baselines refer to the trained network
    budget_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"ratio": ("ratios=[{}]",)}

    name: Literal["cstar"] = "cstar"
    # weights before by weights after, a network for each
    ratios: Annotated[tuple[Ratio, ...], Different] = Field(default=(4.0,), min_length=1)
    epochs: Count = 10  # of low-rank training
    finetune_epochs: Count = 10  # epochs of training in factors
    learning_rate: Positive | None = None  # of low-rank training; None: the recipe's
    finetune_learning_rate: Positive | None = None  # None: half of the recipe's
    pull: Positive = 0.3  # exponent by which weights approach their copy in an update
    rho_growth: Annotated[Positive, Field(ge=1)] = 1.3  # factor of the pull at every update
    update_every: Count = 1  # epochs between updates of the low-rank copy
    freeze: Fraction01 = 0.5  # share of the epochs after which ranks stay
    sweeps: Count = 5  # passes of HOOI a projection
    rank_multiple: Count = 1  # ranks are multiples of this
    min_rank: Fraction01 = 0.05  # share of a side
    skip_ends: bool = (
        True  # the first convolution and the classifier stay: few weights, and everything passes them
    )
    loss: Annotated[Loss, LOSSES.field()] | None = None  # of fine-tuning; None: the recipe's
    baselines: tuple[Baseline, ...] = ("truncate", "truncate-short", "uniform")  # networks of the same ratio

    @property
    def trains(self) -> bool:
        """Return that it trains."""
        return True

    @property
    def limits(self) -> Limits:
        """Return what ranks may be, and which layers have none."""
        return Limits(self.rank_multiple, self.min_rank, self.skip_ends)

    @property
    def frozen_from(self) -> int:
        """Return the first epoch at whose end the ranks stay as they are; the last one at the latest."""
        return min(round(self.freeze * self.epochs), self.epochs - 1)

    def refuse(self, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Raise `CompressionError` for a ratio out of reach."""
        layers = survey(network, input_shape)
        for ratio in self.ratios:
            refuse_ratio(layers, ratio, self.limits)

    def options_for(self, network: nn.Module, input_shape: tuple[int, int, int]) -> str | None:
        """Return the largest usual ratio that the network allows."""
        ratio = usual_ratio(survey(network, input_shape), self.limits)
        return None if ratio is None else f"--ratio {ratio:g}"

    def previews(
        self, network: nn.Module, input_shape: tuple[int, int, int]
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the network in the ranks that the trained weights have, for each ratio; training moves them."""
        layers = survey(network, input_shape)
        for ratio in self.ratios:
            ranks = global_ranks(layers, ratio, self.limits)
            yield f"{self.label}-{ratio:g}", factorise(network, ranks, sweeps=0)[0]

    def other_form(self, network: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
        """Return a copy in which every layer that may have ranks is of rank 1."""
        from robust_nas.layers.factorised import LayerForm, rebuild

        own, forms = copy.deepcopy(network), ("low-rank", "tucker-2")
        ranks = full_ranks(survey(network, input_shape), 1.0, self.limits)
        rebuild(own, [LayerForm(name, forms[len(r) - 1], (1,) * len(r)) for name, r in ranks.items()])
        return own

    def candidates(self, context: CompressionContext) -> Iterator[Candidate]:
        """Make a network for every ratio, each followed by its baselines."""
        for ratio in self.ratios:
            label = f"{self.label}-{ratio:g}"
            folder = context.path(label)
            state, ranks = self._train_low_rank(context, ratio, folder / "admm")
            network = _copy(context)
            network.load_state_dict(state)
            made = {"ratio": ratio, "epochs": self.epochs, "finetune_epochs": self.finetune_epochs}
            epochs, entry = self.finetune_epochs, {self.label: made}
            own = context.candidate(label, self._tuned(context, network, ranks, epochs, folder, entry))
            yield own
            for kind in self.baselines:
                yield self._baseline(context, kind, ratio, ranks, own)

    def _baseline(
        self,
        context: CompressionContext,
        kind: Baseline,
        ratio: float,
        ranks: dict[str, Ranks],
        own: Candidate,
    ) -> Candidate:
        """Return the trained weights, cut to ranks and fine-tuned, as a baseline of the network at this ratio."""
        network = _copy(context)
        if kind == "uniform":
            layers = survey(network, context.model.description.input_shape)
            ranks = uniform_ranks(layers, ratio, self.limits)
        epochs = self.finetune_epochs + (0 if kind == "truncate-short" else self.epochs)
        label = f"{kind}-{ratio:g}"
        made: dict[str, Any] = {kind: {"ratio": ratio, "epochs": epochs}}
        path = self._tuned(context, network, ranks, epochs, context.path(label), made)
        return context.candidate(label, path, method=kind, baseline_of=own)

    def _tuned(
        self,
        context: CompressionContext,
        network: nn.Module,
        ranks: dict[str, Ranks],
        epochs: int,
        folder: Path,
        made: dict[str, Any],
    ) -> Path:
        """Return the model folder of the network in factors of these ranks, fine-tuned."""
        factors, forms = factorise(network, ranks, self.sweeps)
        rate = self.finetune_learning_rate or context.recipe.learning_rate / 2
        tuning = Tuning(epochs, rate, self.loss, key_of(self, context.config, "finetune_learning_rate"))
        return finetune(context, context.model, factors, forms, tuning, folder / "model", made)

    def _train_low_rank(
        self, context: CompressionContext, ratio: float, folder: Path
    ) -> tuple[dict[str, Any], dict[str, Ranks]]:
        """Return the weights that ADMM leaves, of low rank, and their ranks; a run of its own in `folder`."""
        from safetensors.torch import save

        from robust_nas.data.order import batches
        from robust_nas.nets.weights import load_tensors
        from robust_nas.training.divergence import remedy_of
        from robust_nas.training.loop import train

        images = context.images
        # The ranks are those of the epoch that is kept, so only epochs with the final ones are validated.
        recipe = changed_recipe(
            context.recipe,
            self.epochs,
            self.learning_rate or context.recipe.learning_rate,
            ema=None,
            schedule=Cosine(final=0.1),  # at a rate of 0 no rho would draw the weights
            validate_from=self.frozen_from,
            validate_every=1,
        )
        job = StepJob.of(context.config, f"{self.label}, ratio {ratio:g}: low rank")
        with Run(folder, job, context.inner_mode, recipe=context.config) as run:
            if not run.complete:
                network = _copy(context)
                steps = len(batches(len(images), recipe.batch_size, seed=0, epoch=0))
                middles = [epoch + 0.5 for epoch in range(recipe.epochs)]
                factors = [recipe.schedule.factor_at(each, recipe.epochs) for each in middles]
                rates = [recipe.learning_rate * factor for factor in factors]
                rhos = rho_schedule(self, rates, steps, recipe.momentum)
                admm = ADMM(network, context.model.description.input_shape, ratio, self, rhos)
                outcome = train(
                    run,
                    network,
                    images,
                    context.validation,
                    recipe,
                    context.augmentation,
                    seed=context.seed,
                    checkpoint_seconds=context.checkpoint_seconds,
                    progress=renamed(context.progress, "compress: low rank"),
                    hooks=(admm,),
                    remedy=remedy_of(key_of(self, context.config, "learning_rate")),
                )
                write_atomic(folder / LOW_RANK, save(outcome.state))
                records = run.records()
                about = f"CSTAR-style, ratio {ratio:g}, {len(images)} images, seed {context.seed}"
                caption = f"{about}; validation of the projected network: {len(context.validation)} images"
                attack = recipe.validation_attack.label
                with figures.optional("ranks"):
                    figures.plot_ranks(records, folder / "figures/ranks", attack=attack, caption=caption)
                result = {
                    "ratio": ratio,
                    "epoch": outcome.epoch,
                    "validation_clean": outcome.clean,
                    "validation_robust": outcome.robust,
                    "primal_residual": records[outcome.epoch]["primal_residual"],
                    "ranks": {name: list(own) for name, own in admm.ranks.items()},
                    "seconds": round(outcome.seconds, 1),
                }
                run.finish(result, [LOW_RANK], figures=("ranks",))
        state = load_tensors(folder / LOW_RANK, context.model.network.state_dict())
        return state, stored_ranks(folder / "result.json", state)


def _copy(context: CompressionContext) -> nn.Module:
    """Return a copy of the network that the step starts from, on the device."""
    return copy.deepcopy(context.model.network).to(context.device)


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
        """Start with U = 0 and Z the projection of the weights; `rhos` are the epochs', the last one stays.

        Raises:
            CompressionError: a ratio out of reach.
        """
        self.options, self.ratio, self.rhos = options, ratio, tuple(rhos)
        self.layers = survey(network, input_shape)
        self.weights = {layer.name: layer.module.weight for layer in self.layers}
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
        return global_ranks(self.layers, self.ratio, self.options.limits, weights)

    def _project(self) -> None:
        for name, ranks in self.ranks.items():
            self.z[name] = project(self.weights[name] + self.u[name], ranks, self.options.sweeps)

    def penalty(self) -> Tensor:
        """Return the augmented Lagrangian's part: rho / 2 sum ||W - Z + U||^2 over the layers that have ranks."""
        terms = [(self.weights[name] - self.z[name] + self.u[name]).square().sum() for name in self.ranks]
        return self.rho / 2 * torch.stack(terms).sum()

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Renew ranks, Z, U and rho where it is due; returns the residuals ||W - Z|| / ||W||, the rho and ranks."""
        residual, rho = self.residuals(), self.rho
        if (epoch + 1) % self.options.update_every == 0:
            with torch.no_grad():
                if epoch < self.options.frozen_from:
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
        """Return ||W - Z|| / ||W|| of every layer that has ranks, and of all of them."""
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
        """Replace the weights inside by their projections to the present ranks."""
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
        """Return everything that the next step depends on, in addition to the weights."""
        return {
            "z": dict(self.z),
            "u": dict(self.u),
            "rho": self.rho,
            "ranks": {name: list(ranks) for name, ranks in self.ranks.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state. Raises `ValueError` for one of other layers."""
        for own, stored in ((self.z, state["z"]), (self.u, state["u"])):
            if {name: tuple(t.shape) for name, t in stored.items()} != {
                name: tuple(t.shape) for name, t in own.items()
            }:
                raise ValueError("the low-rank copies of the checkpoint are of other layers")
            for name, tensor in stored.items():
                own[name] = tensor.to(self.weights[name], copy=True)
        self.rho = float(state["rho"])
        self.ranks = {name: tuple(ranks) for name, ranks in state["ranks"].items()}


def rho_schedule(options: CSTAR, rates: Sequence[float], steps: int, momentum: float) -> list[float]:
    """Return every epoch's rho: at its rate the penalty alone draws W to Z by e^-pull between two updates.

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


def factorise(
    network: nn.Module, ranks: Mapping[str, Ranks], sweeps: int = 5
) -> tuple[nn.Module, tuple[LayerForm, ...]]:
    """Return a copy in factors, and the forms that rebuild it; exact where the weights have these ranks."""
    from robust_nas.layers.factorised import LayerForm, replace_module

    own = copy.deepcopy(network)
    forms = []
    for name, found in ranks.items():
        layer: Any = own.get_submodule(name)
        replace_module(own, layer, factorised_layer(layer, found, sweeps))
        forms.append(LayerForm(name, "tucker-2" if len(found) == 2 else "low-rank", tuple(found)))
    return own, tuple(forms)

"""GDWS: generalised depthwise-separable convolutions, training-free (Dbouk and Shanbhag, NeurIPS 2021).

A kernel W [M, C, K1, K2] is read as W_1, ..., W_C, each M x K1 K2. Channel c gets g_c kernels and a pointwise matrix of
its own: W_c ~ Q_c = P_c D_c of rank g_c, at K1 K2 + M multiply-adds a kernel and output pixel. With the singular values
s_c of W_c, v_{c,i} = alpha_c s_{c,i}^2 and n = K1 K2 + M multiply-adds a kernel,

    min  sum_l sum_c alpha_{l,c} ||W_{l,c} - Q_{l,c}||^2 = sum of the v that are left out
    s. t.  sum_l n_l H_l W_l sum_c g_{l,c} <= budget

One layer: `gdws_layer.py`; all layers: `allocation.py`, `gdws_network.py`; alpha: `alpha.py`; the fit of P to images,
which is our choice: `refit.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas import figures
from robust_nas.compression.alpha import Alpha, attacked_batches, estimate_alpha
from robust_nas.compression.compressor import Compressor, Different
from robust_nas.compression.finetune import Tuning, finetune
from robust_nas.compression.section import key_of
from robust_nas.config import CountOrZero, NonNegative, Positive
from robust_nas.errors import CheckpointError, CompressionError
from robust_nas.lazy import torch
from robust_nas.records import read_json
from robust_nas.run_folder import write_atomic, write_json
from robust_nas.training import LOSSES, Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.compression.context import Candidate, CompressionContext

LAYERS, ALPHA = "layers.json", "alpha.safetensors"
REPORTED = {"macs_before": int, "macs_after": int, "layers": [object]}
CALIBRATION_BATCH = 64  # images
PREVIEW_MARGIN = 1.25  # our choice: training moves the ranks of an estimated network, and so the least share
Share = Annotated[Positive, Field(lt=1)]


class GDWS(Compressor):
    """Generalised depthwise-separable convolutions, one network a budget.

    `budgets` are shares of the network's MACs that it keeps; `betas` instead bound a layer's weighted squared error
    (the published way, with `allocation: uniform`) or that of the whole network (`global`). With `min_gain` a layer
    whose factorised form is not faster than the dense one by this factor, measured, stays dense. With
    `finetune_epochs` every network is also trained by the recipe, as it is (without the norms that `fold` removed).
    """

    budget_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"macs": ("budgets=[{}]", "betas=null")}

    name: Literal["gdws"] = "gdws"
    # shares of the MACs that are kept, a network for each
    budgets: Annotated[tuple[Share, ...], Different] | None = None
    # bounds of the weighted squared error, instead of budgets
    betas: Annotated[tuple[Positive, ...], Different] | None = None
    allocation: Literal["global", "uniform"] = "global"  # bound of the whole network, or of each layer
    alpha: Alpha | None = Alpha()  # weights of the channels' errors; None: 1 for every channel
    skip_first: bool = True  # whether the first convolution stays dense
    refit: CountOrZero = (
        512  # ours: training images, clean and attacked, that P is fitted to; 0: as published
    )
    fold: bool = True  # batch norms into the convolutions before them
    min_kernels: Annotated[int, Field(ge=0)] = 1  # least kernels of every input channel
    # least measured speed-up of a layer, else it stays dense; None: not measured
    min_gain: NonNegative | None = None
    finetune_epochs: CountOrZero = 0  # ours: 0 is the published, training-free method
    finetune_learning_rate: Positive = 0.02  # learning rate of fine-tuning
    loss: Annotated[Loss, LOSSES.field()] | None = None  # of fine-tuning; None: the recipe's

    @model_validator(mode="before")
    @classmethod
    def _usual_budgets(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("budgets") is None and values.get("betas") is None:
            return {**values, "budgets": (0.75, 0.5, 0.35)}
        return values

    @model_validator(mode="after")
    def _one_kind_of_bound(self) -> Self:
        if self.budgets is not None and self.betas is not None:
            raise ValueError("budgets and betas are both given; set one of them to null")
        if not (self.budgets or self.betas):
            raise ValueError("an empty list; at least one budget, such as 0.5, or one beta is needed")
        return self

    @property
    def trains(self) -> bool:
        """Return whether the networks are fine-tuned."""
        return self.finetune_epochs > 0

    def refuse(self, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Raise `CompressionError` where no layer can be taken, or a share or beta is out of reach."""
        from robust_nas.compression.gdws_network import refuse_shares

        refuse_shares(
            network, input_shape, self.budgets or (), skip_first=self.skip_first, min_kernels=self.min_kernels
        )
        if self.alpha is None:  # else the weights of the errors are measured later
            self._refuse_betas(network, input_shape, None)

    def _refuse_betas(
        self, network: nn.Module, input_shape: tuple[int, int, int], alpha: Mapping[str, Tensor] | None
    ) -> None:
        """Raise `CompressionError` for a beta that leaves every layer dense, with these weights of the errors."""
        from robust_nas.compression.gdws_network import refuse_beta

        for beta in self.betas or ():
            refuse_beta(
                network,
                input_shape,
                beta,
                alpha=alpha,
                allocation=self.allocation,
                skip_first=self.skip_first,
                min_kernels=self.min_kernels,
            )

    def other_form(self, network: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
        """Return a copy in which every layer that can be taken has a kernel a channel."""
        from robust_nas.compression.gdws_network import eligible
        from robust_nas.layers.factorised import LayerForm, rebuild

        layers, _ = eligible(network, input_shape, skip_first=self.skip_first)
        own = copy.deepcopy(network)
        rebuild(own, [LayerForm(one.name, "gdws", (1,) * one.module.weight.shape[1]) for one in layers])
        return own

    def refuse_preview(self, label: str, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Raise `CompressionError` where no layer can be taken, or a share is far out of reach."""
        from robust_nas.compression.gdws_network import least_share

        least = least_share(network, input_shape, skip_first=self.skip_first, min_kernels=self.min_kernels)
        for share in self.budgets or ():
            if PREVIEW_MARGIN * share < least:
                raise CompressionError(
                    f"macs: got {share:g} of {label}'s MACs; about {least:.2f} of them stay at least, as estimated "
                    f"from the trained weights, with {self.min_kernels} kernels a channel; a larger share is needed"
                )

    def candidates(self, context: CompressionContext) -> Iterator[Candidate]:
        """Make a network for every budget, in their order, each followed by the fine-tuned one."""
        folder = context.path(self.label)
        folder.mkdir(parents=True, exist_ok=True)
        shares = [("", "macs", value) for value in self.budgets or ()]
        betas = [("beta-", "beta", value) for value in self.betas or ()]
        alpha: dict[str, Tensor] | None = None
        calibration: Tensor | None = None
        for prefix, bound, value in shares + betas:
            label = f"{self.label}-{prefix}{value:g}"
            if not (folder / label / LAYERS).is_file():  # written last
                if alpha is None and self.alpha is not None:
                    alpha = self._alphas(context, self.alpha, folder / ALPHA)
                if calibration is None and self.refit:
                    calibration = _calibration(context, self.refit)
                self._compress(context, folder / label, {bound: value}, alpha, calibration)
            candidate = context.candidate(label, folder / label)
            yield candidate
            if self.finetune_epochs:
                yield self._tuned(context, candidate)

    def _alphas(self, context: CompressionContext, options: Alpha, path: Path) -> dict[str, Tensor]:
        """Return the alphas, measured once and kept in `path` unless a beta is out of reach with them."""
        from safetensors.torch import save

        if path.is_file():
            return self._stored_alphas(context, path)
        found = _measured_alphas(context, options, self.skip_first)
        self._refuse_betas(context.model.network, context.model.description.input_shape, found)
        write_atomic(path, save(found))
        return found

    def _stored_alphas(self, context: CompressionContext, path: Path) -> dict[str, Tensor]:
        """Return the alphas that an earlier call measured. Raises `CheckpointError`."""
        from robust_nas.compression.gdws_network import eligible
        from robust_nas.nets.weights import load_tensors

        model = context.model
        layers, _ = eligible(model.network, model.description.input_shape, skip_first=self.skip_first)
        weights = model.network.state_dict()
        expected = {
            layer.name: torch.empty(
                weights[f"{layer.name}.weight"].shape[1], dtype=torch.float64, device="meta"
            )
            for layer in layers
        }
        try:
            return load_tensors(path, expected)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; remove it, and they are measured again") from None

    def _compress(
        self,
        context: CompressionContext,
        folder: Path,
        bound: dict[str, Any],
        alpha: dict[str, Tensor] | None,
        calibration: Tensor | None,
    ) -> None:
        """Write the model folder of one budget, with the report of its layers."""
        from robust_nas.attacks.folding import COMPARED
        from robust_nas.compression.gdws_network import compress_gdws

        context.progress("compress: gdws", 0, 1, folder.name)
        model = context.model
        result = compress_gdws(
            model.network.to(context.device),
            model.description.input_shape,
            alpha=alpha,
            allocation=self.allocation,
            skip_first=self.skip_first,
            fold=self.fold,
            min_kernels=self.min_kernels,
            min_gain=self.min_gain,
            calibration=calibration,
            images=context.images.draw(COMPARED, context.seed).float(),
            **bound,
        )
        model.network.cpu()
        made = {**bound, "allocation": self.allocation}
        context.save(folder.name, result.network, result.forms, made, folder)
        images = len(context.images)
        tree = {
            "macs_before": result.macs_before,
            "macs_after": result.macs_after,
            "mismatch_bound": result.bound,
            "alpha_images": None if self.alpha is None else min(self.alpha.images, images),
            "refit_images": min(self.refit, images),
            "not_folded": result.not_folded or None,
            "layers": result.report,
        }
        write_json(folder / LAYERS, tree)

    def _tuned(self, context: CompressionContext, candidate: Candidate) -> Candidate:
        """Return a candidate after fine-tuning."""
        model = context.read(candidate)
        folder = candidate.folder.with_name(f"{candidate.folder.name}-tuned")
        finetune(
            context,
            model,
            model.network.to(context.device),
            (),
            Tuning(
                self.finetune_epochs,
                self.finetune_learning_rate,
                self.loss,
                key_of(self, context.config, "finetune_learning_rate"),
            ),
            folder,
            {"tuned": {"epochs": self.finetune_epochs}},
        )
        return context.candidate(folder.name, folder, made_from=candidate)

    def draw(self, candidate: Candidate, folder: Path, about: str) -> list[str]:
        """Draw the kernels of every layer; a fine-tuned network has the figure of the one that it was made from."""
        if not (candidate.folder / LAYERS).is_file():
            return []
        report = read_json(candidate.folder / LAYERS, REPORTED)
        share = report["macs_after"] / report["macs_before"]
        caption = f"{about}; {candidate.label}: {share:.2f} of the multiply-adds of {candidate.made_from}"
        figures.plot_layers(report["layers"], folder / "figures" / "layers", caption=caption)
        return ["figures/layers.png"]


def _calibration(context: CompressionContext, count: int) -> Tensor:
    """Return training images `[2 count, C, H, W]`: clean ones, then attacked against the network's own predictions."""
    network = context.model.network.to(context.device)
    generator = torch.Generator(context.device).manual_seed(context.seed)
    clean = context.images.draw(count, context.seed).float()
    attack = context.recipe.validation_attack
    return torch.cat([clean, *attacked_batches(network, clean, attack, generator, CALIBRATION_BATCH)])


def _measured_alphas(context: CompressionContext, options: Alpha, skip_first: bool) -> dict[str, Tensor]:
    """Return the alphas of all layers that GDWS can take."""
    from robust_nas.compression.gdws_network import eligible

    model, device = context.model, context.device
    layers, _ = eligible(model.network, model.description.input_shape, skip_first=skip_first)

    def report(done: int, total: int) -> None:
        context.progress("compress: alphas", done, total)

    found = estimate_alpha(
        model.network.to(device),
        [layer.name for layer in layers],
        context.images.draw(options.images, context.seed).float(),
        attack=context.recipe.validation_attack if options.attacked else None,
        generator=torch.Generator(device).manual_seed(context.seed),
        competitors=options.competitors,
        margin_floor=options.margin_floor,
        sketches=options.sketches,
        batch_size=options.batch_size,
        progress=report,
    )
    model.network.cpu()
    return found

"""GDWS on a whole network: which layers can take it, how a budget is spread, and what every layer contributes.

Published (Dbouk and Shanbhag's code): one beta for every layer, the first convolution and 1x1 convolutions stay, no
training. Ours: the global allocation, targets in multiply-adds, folding, and layers that stay dense where that is
cheaper or, measured, faster.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_nas.compression.allocation import Site, global_allocation, uniform
from robust_nas.compression.autotune import gain
from robust_nas.compression.folding import fold_batch_norms, random_images
from robust_nas.compression.gdws_layer import dropped_energy, energies, gdws_layer
from robust_nas.compression.layers import Layer, survey
from robust_nas.compression.refit import refit
from robust_nas.errors import CompressionError, NothingToCompressError
from robust_nas.layers.factorised import LayerForm, replace_module
from robust_nas.layers.inspection import has_hooks
from robust_nas.nets.cost import measured_cost

Row = dict[str, Any]


@dataclass(frozen=True)
class GDWSResult:
    """The network, the forms that rebuild it, a row for every convolution and linear layer, and costs for one image.

    `bound` is the sum of the weighted squared errors of the decomposition. With alphas that were measured, it bounds
    the share of changed predictions on their images, as far as a linear picture with random errors holds (our
    inference; only without a margin floor and with all competitors, which else make it smaller); None without.
    """

    network: nn.Module
    forms: tuple[LayerForm, ...]
    report: list[Row]
    macs_before: int
    macs_after: int
    bound: float | None
    not_folded: str  # why no batch norm was folded; empty: folded, or not asked for

    @property
    def share(self) -> float:
        """Return the share of the multiply-adds that the network keeps."""
        return self.macs_after / self.macs_before


def eligible(
    network: nn.Module, input_shape: tuple[int, int, int], *, skip_first: bool = True
) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers that GDWS can take, and the reasons why the others stay, by name."""
    taken: list[Layer] = []
    reasons: dict[str, str] = {}
    first = True
    for layer in survey(network, input_shape):
        module = layer.module
        reason = ""
        if not isinstance(module, nn.Conv2d):
            reason = "linear layer"
        elif type(module) is not nn.Conv2d or has_hooks(module):
            reason = f"a {type(module).__name__} whose weights are computed, or that has hooks"
        elif first and skip_first:
            reason = "first convolution"
        elif module.kernel_size == (1, 1):
            reason = "1x1 kernel"
        elif module.groups != 1:
            reason = f"grouped ({module.groups} groups of {module.in_channels // module.groups})"
        first = first and not isinstance(module, nn.Conv2d)
        if reason:
            reasons[layer.name] = reason
        else:
            taken.append(layer)
    return taken, reasons


def compress_gdws(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    alpha: Mapping[str, Tensor] | None = None,
    beta: float | None = None,
    macs: float | None = None,
    allocation: Literal["global", "uniform"] = "global",
    skip_first: bool = True,
    fold: bool = True,
    min_kernels: int = 1,
    min_gain: float | None = None,
    calibration: Tensor | None = None,
    images: Tensor | None = None,
) -> GDWSResult:
    """Return a compressed copy of any module with standard convolutions, in eval mode; the network is left as it was.

    Args:
        network: images `[B, C, H, W]` to logits.
        input_shape: (C, H, W) of an image.
        alpha: weights `[C]` of the channels by layer, as `estimate_alpha` gives them. None: ones with the uniform
            allocation, as published; 1 / ||W||^2 with the global one, so that layers of any scale are comparable.
        beta: bound of a layer's weighted squared error (uniform) or of the sum (global).
        macs: instead, the share of the network's multiply-adds that stays.
        allocation: over the layers.
        skip_first: leave the first convolution as it is.
        fold: put batch norms into the convolutions before them.
        min_kernels: of every input channel.
        min_gain: a layer stays dense if its factorised form is not measured to be `min_gain` times faster,
            and its budget goes to the others.
        calibration: images `[N, C, H, W]` in 0..1 on the network's device, on which the pointwise stages are fitted
            (see `refit.py`); None: as the decomposition has them, as published.
        images: `[N, C, H, W]` in 0..1 on the network's device, on which the folded network is compared with the one
            before; None: those of the calibration, or random ones.

    Raises:
        CompressionError: no layer that can be taken, a budget out of reach, or weights or alphas that are not finite.
    """
    if (beta is None) == (macs is None):
        raise CompressionError(f"beta: got {beta}, macs: got {macs}; one of them is needed")
    own = copy.deepcopy(network).eval()
    layers, reasons = eligible(own, input_shape, skip_first=skip_first)
    if not layers:
        raise NothingToCompressError(f"nothing can be factorised: {_format_reasons(reasons)}")
    weights = {layer.name: _alpha(layer, alpha, allocation) for layer in layers}
    before = measured_cost(own, input_shape).macs
    spectra = _spectra(layers, weights)
    chosen = _allocate(layers, spectra, beta, macs, allocation, min_kernels, before, reasons)
    if min_gain is not None:
        while slow := _slow(layers, chosen, min_gain):
            reasons |= slow
            layers = [layer for layer in layers if layer.name not in slow]
            chosen = _allocate(layers, spectra, beta, macs, allocation, min_kernels, before, reasons)
    if not chosen:
        raise _all_dense(beta, macs)
    report = _report(own, input_shape, spectra, chosen, reasons)
    forms = [LayerForm(name, "gdws", tuple(g.tolist())) for name, g in chosen.items()]
    by_name = {layer.name: layer for layer in layers}
    for name, g in chosen.items():
        convolution: Any = by_name[name].module
        replace_module(own, convolution, gdws_layer(convolution, g))
    if calibration is not None:
        forms += refit(copy.deepcopy(network).eval(), own, list(chosen), calibration)
    why = ""
    if fold:
        shown = calibration if images is None else images
        own, folded, why = fold_batch_norms(own, random_images(own, input_shape) if shown is None else shown)
        forms += folded
    return GDWSResult(
        network=own.eval(),
        forms=tuple(forms),
        report=report,
        macs_before=before,
        macs_after=measured_cost(own, input_shape).macs,
        bound=None if alpha is None else sum(row["error"] or 0.0 for row in report),
        not_folded=why,
    )


def _format_reasons(reasons: Mapping[str, str]) -> str:
    """Return how many layers stay for which reason."""
    kinds = [reason.split(" (")[0] for reason in reasons.values()]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def _alpha(layer: Layer, alpha: Mapping[str, Tensor] | None, allocation: str) -> Tensor | None:
    """Return the weights of a layer's channels; None: ones."""
    if alpha is not None:
        if layer.name not in alpha:
            raise CompressionError(f"alpha: holds no {layer.name}; it holds {', '.join(alpha) or 'nothing'}")
        return alpha[layer.name]
    if allocation == "uniform":
        return None
    energy = layer.module.weight.detach().double().square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return (1 / energy).expand(layer.module.weight.shape[1])


def _spectra(layers: list[Layer], weights: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Return the v `[C, r]` of every layer, on the CPU."""
    return {layer.name: energies(layer.module.weight, weights[layer.name]).cpu() for layer in layers}


def _allocate(
    layers: list[Layer],
    spectra: Mapping[str, Tensor],
    beta: float | None,
    macs: float | None,
    allocation: str,
    min_kernels: int,
    before: int,
    reasons: Mapping[str, str],
) -> dict[str, Tensor]:
    """Return the g of every layer that is factorised."""
    sites = [
        Site(
            layer.name,
            spectra[layer.name],
            (layer.module.weight[0, 0].numel() + len(layer.module.weight)) * layer.pixels,
            layer.macs,
        )
        for layer in layers
    ]
    spread = global_allocation if allocation == "global" else uniform
    if macs is None:
        return spread(sites, beta=beta, min_kernels=min_kernels)
    _refuse_share(layers, macs, min_kernels, before, reasons)
    rest = before - sum(site.dense_macs for site in sites)
    return spread(sites, macs=int(macs * before) - rest, min_kernels=min_kernels)


def _least_macs(layers: list[Layer], min_kernels: int, before: int) -> int:
    """Return the multiply-adds of the network with the fewest kernels in all layers."""
    least = before
    for layer in layers:
        outputs, channels = layer.module.weight.shape[:2]
        taps = layer.module.weight[0, 0].numel()
        kernels = max(1, min(min_kernels, outputs, taps) * channels)
        least -= max(0, layer.macs - kernels * (taps + outputs) * layer.pixels)
    return least


def _refuse_share(
    layers: list[Layer], share: float, min_kernels: int, before: int, reasons: Mapping[str, str]
) -> None:
    """Raise `CompressionError` where the fewest kernels of all layers are more than the share."""
    least = _least_macs(layers, min_kernels, before)
    if least > share * before:
        raise CompressionError(
            f"macs: got {share:g} of {before:,}; at least {least / before:.4f} stay, with {min_kernels} kernels "
            f"a channel and layers as they are: {_format_reasons(reasons)}"
        )


def least_share(
    network: nn.Module, input_shape: tuple[int, int, int], *, skip_first: bool = True, min_kernels: int = 1
) -> float:
    """Return the smallest share of the multiply-adds that can be reached.

    Raises `CompressionError` where no layer can be taken.
    """
    layers, reasons = eligible(network, input_shape, skip_first=skip_first)
    if not layers:
        raise NothingToCompressError(f"nothing can be factorised: {_format_reasons(reasons)}")
    before = measured_cost(network, input_shape).macs
    return _least_macs(layers, min_kernels, before) / before


def refuse_shares(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    shares: Sequence[float],
    *,
    skip_first: bool = True,
    min_kernels: int = 1,
) -> None:
    """Raise `CompressionError` where no layer can be taken, or one of the shares of multiply-adds is out of reach."""
    layers, reasons = eligible(network, input_shape, skip_first=skip_first)
    if not layers:
        raise NothingToCompressError(f"nothing can be factorised: {_format_reasons(reasons)}")
    before = measured_cost(network, input_shape).macs
    for share in shares:
        _refuse_share(layers, share, min_kernels, before, reasons)


def refuse_beta(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    beta: float,
    *,
    alpha: Mapping[str, Tensor] | None = None,
    allocation: Literal["global", "uniform"] = "global",
    skip_first: bool = True,
    min_kernels: int = 1,
) -> None:
    """Raise `CompressionError` for a beta that leaves every layer dense, or one without a kernel, with these alphas."""
    layers, reasons = eligible(network, input_shape, skip_first=skip_first)
    weights = {layer.name: _alpha(layer, alpha, allocation) for layer in layers}
    if not _allocate(layers, _spectra(layers, weights), beta, None, allocation, min_kernels, 0, reasons):
        raise _all_dense(beta, None)


def _all_dense(beta: float | None, macs: float | None) -> CompressionError:
    return CompressionError(
        f"beta {beta} leaves every layer dense: factorised they would cost more; a larger one is needed"
        if macs is None
        else f"macs {macs} leaves every layer dense; a smaller share is needed"
    )


def _slow(layers: list[Layer], chosen: Mapping[str, Tensor], min_gain: float) -> dict[str, str]:
    """Return the layers that are not fast enough in their factorised form, with the measured gain."""
    found = {}
    for layer in layers:
        if layer.name in chosen and isinstance(layer.module, nn.Conv2d):
            measured = gain(layer.module, gdws_layer(layer.module, chosen[layer.name]), layer.takes)
            if measured < min_gain:
                found[layer.name] = f"measured {measured:.2f} times as fast, {min_gain:g} asked for"
    return found


def _report(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    spectra: Mapping[str, Tensor],
    chosen: Mapping[str, Tensor],
    reasons: Mapping[str, str],
) -> list[Row]:
    """Return a row for every convolution and linear layer of the network as it was."""
    rows = []
    for layer in survey(network, input_shape):
        row: Row = {
            "name": layer.name,
            "form": "dense",
            "reason": reasons.get(layer.name, "cheaper dense"),
            "macs": layer.macs,
            "macs_after": layer.macs,
            "params": layer.params,
            "params_after": layer.params,
            "kernels": None,
            "g_min": None,
            "g_median": None,
            "g_max": None,
            "error": None,
        }
        if layer.name in chosen:
            g, weight = chosen[layer.name], layer.module.weight
            kernels = int(g.sum())
            size = kernels * (weight[0, 0].numel() + len(weight))
            row |= {
                "form": "gdws",
                "reason": None,
                "macs_after": size * layer.pixels,
                "params_after": size,
                "kernels": kernels,
                "g_min": int(g.min()),
                "g_median": float(g.double().median()),
                "g_max": int(g.max()),
                "error": dropped_energy(spectra[layer.name], g),
            }
        rows.append(row)
    return rows

"""GDWS as a step of a compression: alphas once, then a model folder for every budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save

from robust_nas.compression.options import GDWS
from robust_nas.config import to_yaml, to_yaml_dict
from robust_nas.errors import CheckpointError
from robust_nas.runs import write_atomic, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.nets import Model
    from robust_nas.workflows.compress_work import Work

LAYERS, ALPHA = "layers.json", "alpha.safetensors"


def run_gdws(work: Work, options: GDWS, model: Model, folder: Path) -> Iterator[Path]:
    """A model folder `<folder>/gdws-<share>` (or `gdws-beta-<beta>`) for every budget, in their order.

    What is there already, alphas too, is taken over. Raises `CompressionError` for a budget out of reach.
    """
    from robust_nas.compression.gdws_network import compress_gdws
    from robust_nas.nets import inference_state, save_model

    folder.mkdir(parents=True, exist_ok=True)
    shares = [("gdws-", "macs", value) for value in options.budgets or ()]
    betas = [("gdws-beta-", "beta", value) for value in options.betas or ()]
    alpha: dict[str, torch.Tensor] | None = None
    calibration: torch.Tensor | None = None
    device = work.material.device
    for prefix, key, value in shares + betas:
        made = folder / f"{prefix}{value:g}"
        if not (made / LAYERS).is_file():  # written last
            if alpha is None and options.alpha is not None:
                alpha = _alphas(work, options, model, folder / ALPHA)
            if calibration is None and options.refit:
                calibration = _calibration(work, options.refit, model.network.to(device))
            work.progress("compress: gdws", 0, 1, made.name)
            result = compress_gdws(
                model.network.to(device),
                model.description.input_shape,
                alpha=alpha,
                allocation=options.allocation,
                skip_first=options.skip_first,
                fold=options.fold,
                min_kernels=options.min_kernels,
                min_gain=options.min_gain,
                calibration=calibration,
                **{key: value},
            )
            model.network.cpu()
            description = model.description.changed(
                result.forms, {"gdws": {key: value, "allocation": options.allocation}}
            )
            save_model(made, model.architecture, inference_state(result.network), description)
            # What `robust-nas evaluate` finds data and protocol in.
            text = to_yaml({"config": to_yaml_dict(work.config)})
            write_atomic(made / "config.yaml", text.encode())
            tree = {
                "macs_before": result.macs_before,
                "macs_after": result.macs_after,
                "mismatch_bound": result.bound,
                "alpha_images": None
                if options.alpha is None
                else min(options.alpha.images, len(work.images)),
                "refit_images": min(options.refit, len(work.images)),
                "not_folded": result.not_folded or None,
                "layers": result.report,
            }
            write_json(made / LAYERS, tree)
        yield made


def _calibration(work: Work, count: int, network: nn.Module) -> torch.Tensor:
    """Images of the training split, as they are and attacked against what the network says of them."""
    import torch

    seed, device = work.config.seed, work.material.device
    order = torch.randperm(len(work.images), generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator(device).manual_seed(seed)
    clean = work.images.subset(order[:count]).float()
    found = [clean]
    for part in torch.split(clean, 64):
        with torch.no_grad():
            said = network(part).argmax(1)
        found.append(work.config.training.validation_attack(network, part, said, generator))
    return torch.cat(found)


def _alphas(work: Work, options: GDWS, model: Model, path: Path) -> dict[str, torch.Tensor]:
    """The alphas of all layers that GDWS can take, measured once."""
    import torch

    from robust_nas.compression.alpha import estimate_alpha
    from robust_nas.compression.gdws_network import eligible

    chosen: Any = options.alpha
    if path.is_file():
        try:
            return load_file(path)
        except Exception as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error}; remove it to measure them anew"
            ) from None
    layers, _ = eligible(model.network, model.description.input_shape, skip_first=options.skip_first)
    seed, device = work.config.seed, work.material.device
    order = torch.randperm(len(work.images), generator=torch.Generator().manual_seed(seed))

    def report(done: int, total: int) -> None:
        work.progress("compress: alphas", done, total)

    found = estimate_alpha(
        model.network.to(device),
        [layer.name for layer in layers],
        work.images.subset(order[: chosen.images]).float(),
        attack=work.config.training.validation_attack if chosen.attacked else None,
        generator=torch.Generator(device).manual_seed(seed),
        competitors=chosen.competitors,
        margin_floor=chosen.margin_floor,
        sketches=chosen.sketches,
        batch_size=chosen.batch_size,
        progress=report,
    )
    model.network.cpu()
    write_atomic(path, save(found))
    return found

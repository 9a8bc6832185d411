"""GDWS as a step of a compression: alphas once, then a model folder for every budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save

from robust_nas.compression.options import GDWS
from robust_nas.errors import CheckpointError
from robust_nas.runs import Progress, read_json, silent, write_atomic, write_json

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Images
    from robust_nas.nets import Model
    from robust_nas.training.options import Training

LAYERS, ALPHA = "layers.json", "alpha.safetensors"


@dataclass(frozen=True)
class GDWSArtifact:
    """A compressed model: its label, its folder, and the tree of `layers.json` in it."""

    label: str
    folder: Path
    report: dict[str, Any]


def run_gdws(
    model: Model,
    options: GDWS,
    images: Images,
    recipe: Training,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    progress: Progress = silent,
) -> Iterator[GDWSArtifact]:
    """A model folder `<folder>/gdws-<share>` (or `gdws-beta-<beta>`) for every budget, in their order.

    What is there already, alphas too, is taken over. `images` are those of the training split. Raises
    `CompressionError` for a budget out of reach.
    """
    from robust_nas.compression.gdws_network import compress_gdws
    from robust_nas.nets import inference_state, save_model
    from robust_nas.nets.model import StoredForm

    folder.mkdir(parents=True, exist_ok=True)
    shares = [("gdws-", "macs", value) for value in options.budgets or ()]
    betas = [("gdws-beta-", "beta", value) for value in options.betas or ()]
    alpha: dict[str, torch.Tensor] | None = None
    for prefix, key, value in shares + betas:
        label = f"{prefix}{value:g}"
        made = folder / label
        if not (made / LAYERS).is_file():  # written last
            if alpha is None and options.alpha is not None:
                alpha = _alphas(model, options, images, recipe, folder / ALPHA, seed, device, progress)
            result = compress_gdws(
                model.network,
                model.description.input_shape,
                alpha=alpha,
                allocation=options.allocation,
                skip_first=options.skip_first,
                fold=options.fold,
                min_kernels=options.min_kernels,
                min_gain=options.min_gain,
                **{key: value},
            )
            forms = [StoredForm(name=name, form=form, numbers=n) for name, form, n in result.forms]
            description = model.description.model_copy(
                update={
                    "layers": (*model.description.layers, *forms),
                    "made_by": {
                        **model.description.made_by,
                        "gdws": {key: value, "allocation": options.allocation},
                    },
                }
            )
            save_model(made, model.architecture, inference_state(result.network), description)
            write_json(
                made / LAYERS,
                {
                    "macs_before": result.macs_before,
                    "macs_after": result.macs_after,
                    "mismatch_bound": result.bound,
                    "alpha_images": None if options.alpha is None else min(options.alpha.images, len(images)),
                    "not_folded": result.not_folded or None,
                    "layers": result.report,
                },
            )
        yield GDWSArtifact(label, made, read_json(made / LAYERS))


def _alphas(
    model: Model,
    options: GDWS,
    images: Images,
    recipe: Training,
    path: Path,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, torch.Tensor]:
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
    if not layers:
        return {}
    generator = torch.Generator(device).manual_seed(seed)
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: chosen.images]

    def report(done: int, total: int) -> None:
        progress("compress: alphas", done, total)

    found = estimate_alpha(
        model.network.to(device),
        [layer.name for layer in layers],
        images.subset(drawn).float(),
        attack=recipe.validation_attack if chosen.attacked else None,
        generator=generator,
        competitors=chosen.competitors,
        margin_floor=chosen.margin_floor,
        sketches=chosen.sketches,
        batch_size=chosen.batch_size,
        progress=report,
    )
    model.network.cpu()
    write_atomic(path, save(found))
    return found

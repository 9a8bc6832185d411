"""A folder of LADDER's parts: fitted once to a model, known by its digest, read by the attack `ladder`.

    ladder.json           options, layer, shapes, classes, the victim's digest, how good decoder and SVMs are
    ladder.safetensors    the decoder, the unit normals, offsets and margins of all pairs of classes
    model/                a copy of the model folder, where there was one: the encoder of a transfer attack
    figures/              pictures along the normals (`figures/latent_boundary.py`)

N images, B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from robust_nas.attacks.ladder_fit import (
    AT_ONCE,
    LadderParts,
    LatentFit,
    as_float,
    checked_classes,
    encoded,
    fit_parts,
    restored_parts,
)
from robust_nas.attacks.predictor import own_samples
from robust_nas.config import Count, Options, check, expand_path, to_dict
from robust_nas.errors import AttackError, CheckpointError, ConfigError, DataError, RunExistsError
from robust_nas.files import files_digest, is_empty, write_together
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.attacks.attacked_model import AttackedModel

DESCRIPTION, WEIGHTS, MODEL = "ladder.json", "ladder.safetensors", "model"
HELD_OUT = 10  # one image of so many judges the decoder
SHOWN = 6  # images of the figure
RELATIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # eps of the figure, in distances to the boundary


class LabelledImages(Protocol):
    """What the parts are fitted to: `robust_nas.data` gives such objects."""

    @property
    def pixels(self) -> Tensor:
        """The images, uint8, or float in 0..1, `[N, C, H, W]`."""

    @property
    def labels(self) -> Tensor:
        """Their classes, int64 `[N]`."""


class FittedLadder(Options):
    """What `ladder.json` says: the parts, and what they were fitted to."""

    schema_version: int = Field(default=1, ge=1, le=1)
    options: LatentFit
    layer: str  # at which the network is cut
    latent: tuple[Count, ...]
    image: tuple[Count, Count, Count]  # C, H, W
    classes: Count
    victim: str  # digest
    seed: int
    images: Count  # that were fitted
    svm_accuracy: float  # on the latents that the SVMs saw, mean over the pairs
    unconverged: int
    reconstruction_error: float  # root mean square over pixels of images held out
    reconstruction_accuracy: float  # of the model on the decoded images held out


def fit_ladder(
    model: str | Path | nn.Module,
    images: LabelledImages,
    folder: str | Path,
    options: LatentFit | None = None,
    *,
    seed: int = 0,
    figure: bool = True,
) -> FittedLadder:
    """Fit LADDER's parts to a model, write them into a new folder, and return what its `ladder.json` says.

    Args:
        model: a model folder, or a module on the images' device.
        images: labelled images that the attack is not judged on, such as the training images; a tenth is held out.
        folder: must not exist, or be empty.
        options: how they are fitted.
        seed: of the decoder's first weights and its batches.
        figure: whether pictures along the normals are drawn.

    Raises:
        ConfigError: the network has no such layer, or cannot be cut there.
        DataError: a class has no images, or there are none to hold out.
        RunExistsError: the folder is not empty. In all cases nothing is written.
    """
    folder, options = expand_path(folder), options or LatentFit()
    if folder.exists() and not is_empty(folder):
        raise RunExistsError(f"{folder}: exists and is not empty; choose another folder")
    source = None if _is_module(model) else expand_path(model)  # type: ignore[arg-type]
    network = _network(model, images)
    count = len(images.labels)
    if count < 2 * HELD_OUT:
        raise DataError(f"ladder: got {count} images; at least {2 * HELD_OUT} are needed")
    from robust_nas.layers.cuts import Cut

    cut = Cut(network, options.layer)
    image: Any = tuple(images.pixels.shape[1:])
    classes = checked_classes(cut, image)
    generator = torch.Generator(images.labels.device).manual_seed(seed)
    order = torch.randperm(count, generator=generator, device=images.labels.device)
    held, fitted = order[: count // HELD_OUT], order[count // HELD_OUT :]
    parts = fit_parts(
        cut,
        images.pixels,
        images.labels,
        torch.split(fitted, AT_ONCE),
        classes,
        options,
        generator,
    )
    error, accuracy = _judged(cut, parts, images, held)
    made = FittedLadder(
        options=options,
        layer=cut.layer,
        latent=parts.shape,
        image=image,
        classes=classes,
        victim=victim_digest(network),
        seed=seed,
        images=len(fitted),
        svm_accuracy=parts.svm_accuracy,
        unconverged=parts.unconverged,
        reconstruction_error=error,
        reconstruction_accuracy=accuracy,
    )
    shown = images.pixels[held[:SHOWN]], images.labels[held[:SHOWN]]
    record = boundary_record(cut, parts, as_float(shown[0]), shown[1]) if figure else None
    _write(folder, made, parts, source)
    if record is not None:
        _draw(record, made, folder)
    return made


def _is_module(model: object) -> bool:
    return isinstance(model, torch.nn.Module)


def _network(model: Any, images: LabelledImages) -> nn.Module:
    """Return the network, which takes these images. Raises `DataError` for images of another shape."""
    if _is_module(model):
        own: nn.Module = model
        return own
    from robust_nas.nets import read_model

    found = read_model(expand_path(model), images.pixels.device)
    if found.description.input_shape != tuple(images.pixels.shape[1:]):
        raise DataError(
            f"{model}: takes images {found.description.input_shape}, these are {tuple(images.pixels.shape[1:])}"
        )
    stored = found.description.defence
    if stored is not None and (stored.method.inference_samples is not None or stored.method.abstains):
        raise ConfigError(
            f"{model}: its defence {stored.method.label} is random or rejects images, and the parts are fitted to "
            "single answers; fit them to the undefended model"
        )
    if own_samples(found.network) is not None:
        raise ConfigError(
            f"{model}: is random, and the parts are fitted to single answers; fit them to a deterministic model"
        )
    return found.network


def _judged(cut: Any, parts: LadderParts, images: LabelledImages, held: Tensor) -> tuple[float, float]:
    """Return the root mean square error of the decoder, and the accuracy of the model on its images."""
    squares, right = 0.0, 0
    for rows in torch.split(held, AT_ONCE):
        x, labels = as_float(images.pixels[rows]), images.labels[rows]
        decoded = parts.decode(encoded(cut, x).flatten(1))
        squares += float((decoded - x).square().sum())
        right += int((_logits(cut, decoded).argmax(1) == labels).sum())
    return (squares / images.pixels[held].numel()) ** 0.5, right / len(held)


def _logits(cut: Any, x: Tensor) -> Tensor:
    from robust_nas.attacks.attacked_model import attack_mode

    with torch.no_grad(), attack_mode(cut.network):
        logits: Tensor = cut.network(x)
    return logits


def boundary_record(cut: Any, parts: LadderParts, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return what `latent_boundary` draws of a few images `[N, C, H, W]`: along the normal to the nearest boundary."""
    z = encoded(cut, images).flatten(1)
    boundaries = parts.like(z).boundaries
    target = boundaries.nearest(z, labels, 1)[:, 0]
    side = boundaries.toward(labels, target)
    distance, _ = boundaries.crossing(z, side)
    far = torch.where(distance > 0, distance, side.unit)
    moved = [boundaries.moved(z, side, step * far) for step in RELATIVE]
    decoded = [parts.like(z).decode(each) for each in moved]
    return {
        "layer": cut.layer,
        "images": images.tolist(),
        "labels": labels.tolist(),
        "targets": target.tolist(),
        "relative": list(RELATIVE),
        "distance": distance.tolist(),
        "score": [boundaries.score(each, side).tolist() for each in moved],  # [E, N]
        "decoded": [each.tolist() for each in decoded],  # [E, N, C, H, W]
        "prediction": [_logits(cut, each).argmax(1).tolist() for each in decoded],  # [E, N]
        "prediction_of_image": _logits(cut, images).argmax(1).tolist(),
    }


def _draw(record: dict[str, Any], made: FittedLadder, folder: Path) -> None:
    from robust_nas.figures import draw_figures

    about = f"latents at {made.layer}; decoder: root mean square error {made.reconstruction_error:.3f}"
    draw_figures("training", {"latent_boundary": record}, folder / "figures", about=about)


def _write(folder: Path, made: FittedLadder, parts: LadderParts, source: Path | None) -> None:
    """Write the folder under another name, and give it its own at the end."""
    from safetensors.torch import save

    tree = parts.to_dict()
    tensors = {f"decoder.{name}": tensor.contiguous() for name, tensor in tree["decoder"].items()}
    tensors |= {key: tree["boundaries"][key].contiguous() for key in ("normals", "offsets", "units")}
    text = json.dumps(to_dict(made), indent=2) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        place.chmod(0o755)
        if source is not None:
            (place / MODEL).mkdir()
            for path in (source / name for name in ("architecture.yaml", "model.json", "model.safetensors")):
                if path.is_file():
                    shutil.copyfile(path, place / MODEL / path.name)
        write_together({place / WEIGHTS: save(tensors), place / DESCRIPTION: text.encode()})
        place.rename(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def load_ladder(folder: str | Path) -> tuple[FittedLadder, LadderParts]:
    """Return what a folder of `fit_ladder` holds. Raises `CheckpointError` for a missing, damaged or foreign one."""
    return _read(*_stamped(folder))


def ladder_digest(folder: str | Path) -> str:
    """Return the digest of a folder of `fit_ladder`, 16 hex digits. Raises `CheckpointError` for a missing one."""
    return _digest(*_stamped(folder))


def _stamped(folder: str | Path) -> tuple[str, int, int]:
    """Return a folder, and what changes when its files do. Raises `CheckpointError` for a missing one."""
    folder = expand_path(folder)
    missing = [name for name in (DESCRIPTION, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: no folder of LADDER's parts, {', '.join(missing)} is missing; "
            "robust_nas.attacks.fit_ladder writes one"
        )
    parts, weights = ((folder / name).stat().st_mtime_ns for name in (DESCRIPTION, WEIGHTS))
    return str(folder), parts, weights


@lru_cache(maxsize=4)
def _digest(folder: str, *_: int) -> str:
    return files_digest(Path(folder), (DESCRIPTION, WEIGHTS))


@lru_cache(maxsize=4)  # an attack reads it for every batch
def _read(folder: str, *_: int) -> tuple[FittedLadder, LadderParts]:
    from robust_nas.layers.ladder import Decoder
    from robust_nas.nets.weights import load_tensors

    path = Path(folder)
    try:
        tree = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path / DESCRIPTION}: cannot be read: {error}") from None
    made = check(FittedLadder, tree, str(path / DESCRIPTION), CheckpointError)  # type: ignore[arg-type]
    d, pairs = 1, made.classes * (made.classes - 1) // 2
    for side in made.latent:
        d *= side
    expected = {
        "normals": torch.empty(pairs, d, device="meta"),
        "offsets": torch.empty(pairs, device="meta"),
        "units": torch.empty(pairs, device="meta"),
    }
    with torch.device("meta"):
        decoder = Decoder(made.latent, made.image, made.options.decoder_width)
    expected |= {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    tensors = load_tensors(path / WEIGHTS, expected)
    if any(not each.isfinite().all() for each in tensors.values() if each.is_floating_point()):
        raise CheckpointError(f"{path / WEIGHTS}: holds NaN or infinite values")
    whole = {
        "decoder": {
            name.removeprefix("decoder."): tensor
            for name, tensor in tensors.items()
            if name.startswith("decoder.")
        },
        "boundaries": {
            **{key: tensors[key] for key in ("normals", "offsets", "units")},
            "classes": made.classes,
            "attention": made.options.attention,
        },
        "shape": list(made.latent),
        "svm_accuracy": made.svm_accuracy,
        "unconverged": made.unconverged,
    }
    return made, restored_parts(whole, made.image, made.options, torch.empty(0))


def victim_digest(network: nn.Module) -> str:
    """Return the digest of a network's modules and values in float32, 64 hex digits."""
    from robust_nas.nets.digest import current_digest, model_digest

    other = any(p.dtype not in (torch.float32, torch.int64) for p in network.state_dict().values())
    return model_digest(copy.deepcopy(network).float()) if other else current_digest(network)


def latents_for(folder: str, model: AttackedModel, transfer: bool) -> tuple[Tensor, Tensor, LadderParts]:
    """Return flat latents `[B, d]` of the attacked images, their logits, and the parts in the latents' type.

    Raises `AttackError` where the folder does not fit images or model.
    """
    made, parts = load_ladder(folder)
    shape = tuple(model.images.shape[1:])
    if shape != made.image:
        raise AttackError(f"{folder}: is of images {made.image}, these are {shape}")
    own = model.predictor.module
    if not transfer:
        if victim_digest(own) != made.victim:
            raise AttackError(
                f"{folder}: was fitted to another model (digest {made.victim[:16]}); fit parts to this one, or set "
                "transfer: true, which attacks it by the encoder of the other"
            )
        z, clean = _own_latents(made.layer, model)
    else:
        source = _source(folder, model)
        clean = model.logits(model.images)
        z = encoded(source, model.images)
        model.forwards += len(model.images)
    z = z.flatten(1)
    return z, clean, parts.like(z)


def _own_latents(layer: str, model: AttackedModel) -> tuple[Tensor, Tensor]:
    """Return latents and logits by the same passes; of a random model, their mean."""
    from robust_nas.layers.cuts import Cut

    with Cut(model.predictor.module, layer).recorded() as seen:
        clean = model.logits(model.images)
    return torch.stack(seen).mean(0), clean


def _source(folder: str, model: AttackedModel) -> Any:
    """Return the network that the parts were fitted to, cut at their layer."""
    place = expand_path(folder) / MODEL
    if not place.is_dir():
        raise AttackError(
            f"{folder}: was fitted to a module, and holds no model to transfer from; fit it to a model folder"
        )
    made, _ = load_ladder(folder)
    images = model.images
    times = tuple(path.stat().st_mtime_ns for path in sorted(place.iterdir()))
    return _read_source(str(place), times, made.layer, made.victim, images.device, images.dtype)


@lru_cache(maxsize=2)  # an attack reads it for every batch
def _read_source(place: str, times: tuple[int, ...], layer: str, victim: str, device: Any, dtype: Any) -> Any:
    from robust_nas.layers.cuts import Cut
    from robust_nas.nets import read_model

    network = read_model(place, device).network
    if (digest := victim_digest(network)) != victim:
        raise AttackError(
            f"{place}: is not the model that the parts were fitted to; its digest was {victim[:16]}, is {digest[:16]}"
        )
    return Cut(network.to(dtype), layer)

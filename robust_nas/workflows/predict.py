"""Answers of a model folder for image files: the class, its probability, and the classes after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robust_nas.config import expand_path
from robust_nas.errors import DataError
from robust_nas.workflows.places import model_in

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

BATCH = 64  # images of a pass


class Prediction(NamedTuple):
    """What a model answers for a file; `answer` is None where a detector rejects the image."""

    file: str
    answer: str | None
    probability: (
        float  # of the answer: softmax of the inference rule, which attacks can make as high as they like
    )
    ranked: tuple[tuple[str, float], ...]  # all classes with their probabilities, the highest first


def predict(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    fit: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> list[Prediction]:
    """Return what a model answers for image files, in their order, by its own inference rule.

    Args:
        model: a model folder, or a run folder with one in `model/`.
        images: image files, and folders of them, whose files are taken by name.
        fit: whether images of another size are resized (bilinear, antialiased), and colours made grey where the model
            takes grey images; otherwise they are refused.
        seed: of what a random network draws.
        device: where the network runs.

    Raises:
        CheckpointError: the folder holds no model, or a damaged one.
        DataError: a file is no image, or of another size or kind than the model takes.
    """
    import torch

    from robust_nas.attacks.predictor import Predictor
    from robust_nas.nets import read_model
    from robust_nas.nets.build import seeded

    found = read_model(model_in(model), device)
    files = [file for place in images for file in _files(expand_path(place))]
    if not files:
        raise DataError("images: got none; at least one file is needed")
    shape, names = found.description.input_shape, found.description.class_names
    pixels = [_pixels(file, shape, fit) for file in files]
    predictor = Predictor.of(found.network).eval()
    answers: list[Prediction] = []
    with torch.no_grad(), seeded(seed):
        for start in range(0, len(files), BATCH):
            part = torch.stack([torch.from_numpy(each) for each in pixels[start : start + BATCH]])
            logits = predictor(part.to(device).float() / 255).float()
            answers += _answers(files[start : start + BATCH], logits, names, predictor.abstains)
    return answers


def _answers(
    files: Sequence[Path], logits: Tensor, names: Sequence[str], abstains: bool
) -> Iterable[Prediction]:
    """Yield the answers of logits `[B, K]`, or `[B, K + 1]` where the last one means that the image is rejected."""
    for file, own in zip(files, logits.double().cpu(), strict=True):
        shares = own[: len(names)].softmax(0)
        ranked = tuple((names[index], float(shares[index])) for index in shares.argsort(descending=True))
        rejected = abstains and int(own.argmax()) == len(names)
        yield Prediction(str(file), None if rejected else ranked[0][0], ranked[0][1], ranked)


def _files(place: Path) -> list[Path]:
    """Return a file as it is, and the image files of a folder in the order of their names."""
    from robust_nas.data.image_file import EXTENSIONS
    from robust_nas.data.image_folder import natural_key

    if not place.is_dir():
        return [place]
    found = [each for each in place.iterdir() if each.suffix.lower() in EXTENSIONS and each.is_file()]
    if not found:
        raise DataError(f"{place}: holds no image file ({', '.join(EXTENSIONS)})")
    return sorted(found, key=lambda each: natural_key(each.name))


def _pixels(file: Path, shape: tuple[int, int, int], fit: bool) -> npt.NDArray[np.uint8]:
    """Return the image as `[C, H, W]` of the model's shape. Raises `DataError` where it is another one."""
    import numpy as np
    from PIL import Image

    from robust_nas.data.image_file import layout, pixels

    channels, height, width = shape
    if not file.is_file():
        raise DataError(f"{file}: there is no such image")
    own_width, own_height, grey = layout(str(file))
    wrong = []
    if (own_width, own_height) != (width, height):
        wrong.append(f"{own_width}x{own_height} pixels (the model takes {width}x{height})")
    if channels == 1 and not grey:
        wrong.append("in colour (the model takes grey images)")
    if channels not in (1, 3):
        raise DataError(f"{file}: the model takes images of {channels} channels, which no image file has")
    if wrong and not fit:
        raise DataError(
            f"{file}: is {' and '.join(wrong)}; --fit resizes and converts it (fit=True in Python)"
        )
    read = pixels(str(file), "L" if channels == 1 else "RGB")
    if read.shape[:2] != (height, width):
        read = np.asarray(Image.fromarray(read).resize((width, height), Image.Resampling.BILINEAR))
    return np.array(read.reshape(height, width, channels).transpose(2, 0, 1), order="C")

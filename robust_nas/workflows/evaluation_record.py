"""What the record of an evaluation holds in addition to its figures: what was tested, and how far it can be believed.

tested     {dataset, part, split_by, available, images, seed, checksum, test_checksum, text}
weights    of a user's own module: the name of the file, or "as built"
warnings   a list of {text, advice}: images that the model may have been trained on, weights that nobody gave,
other classes than the dataset's, other images than those of the training, what is odd about the dataset
sentence   for a paper (`robust_nas.evaluation.paper`), with the texts of the warnings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.evaluation.paper import paper_sentence

if TYPE_CHECKING:
    from robust_nas.data import Dataset, SplitBy

AS_BUILT = "as built"
SPLITS: dict[SplitBy, str] = {
    "publishers": "split by its publishers",
    "robust_nas": "split by robust_nas, for want of an official split",
    "user": "split by its user",
    "nobody": "without test images",
}


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: with a `spec` (`net.py:build`), a user's own module, not trained by this toolkit."""

    spec: str | None = None
    weights: str | None = None  # of a module: the name of its file, or `AS_BUILT`; None: of a model folder
    checksum: str | None = None  # of the images that a model folder was trained on, where it records them

    @classmethod
    def of_module(cls, spec: str, weights: Path | None) -> Origin:
        """Return the origin of the module that `path.py:function` builds, without the place of the file."""
        return cls(Path(spec).name, AS_BUILT if weights is None else Path(weights).name)


def recorded(tree: Mapping[str, Any], name: str, origin: Origin, dataset: Dataset) -> dict[str, Any]:
    """Return the keys above for the evaluation of the model `name`, whose own record is `tree`."""
    about = images_tested(dataset, tree["clean"]["images"], tree["seed"])
    found: dict[str, Any] = {"tested": about, "warnings": warnings(origin, dataset, tree["classes"])}
    if origin.weights is not None:
        found["weights"] = origin.weights
    return {**found, "sentence": paper_sentence({**tree, **found}, model=name, images=about["text"])}


def images_tested(dataset: Dataset, images: int, seed: int) -> dict[str, Any]:
    """Return which images an evaluation tests: dataset, whose split, how many of how many, and the seed."""
    available = len(dataset.test)
    return {
        "dataset": dataset.name,
        "part": "test",
        "split_by": dataset.split_by,
        "available": available,
        "images": images,
        "seed": seed,
        "checksum": dataset.checksum,
        "test_checksum": dataset.test_checksum,
        "text": (
            f"{images} of the {available} test images of {dataset.name} ({SPLITS[dataset.split_by]}; "
            f"drawn with seed {seed})"
        ),
    }


def warnings(origin: Origin, dataset: Dataset, outputs: int) -> list[dict[str, str]]:
    """Return what a reader must know before the figures are believed; `outputs` are the classes of the model."""
    found = [remark._asdict() for remark in dataset.warnings]
    if origin.checksum is not None and not dataset.has_checksum(origin.checksum):
        found.append(
            {
                "text": f"the model was trained on other images than these of {dataset.name} (checksum "
                f"{origin.checksum[:12]} then, {dataset.checksum[:12]} here)",
                "advice": "name the dataset of the training, with data.path=PATH where it has moved",
            }
        )
    if origin.spec is not None and dataset.split_by == "robust_nas":
        found.append(
            {
                "text": f"{origin.spec} was not trained by robust_nas, which made this split: it may have been trained "
                "on most of these test images, and its accuracies may be too high",
                "advice": f"train it on robust_nas.load_dataset(robust_nas.DataOptions(name={dataset.name!r})).train, "
                "or name images that it has not seen (evaluate --data FOLDER; data.path of a recipe)",
            }
        )
    if origin.weights == AS_BUILT:
        found.append(
            {
                "text": f"no weights were given for {origin.spec}: unless its function loads some, they are random",
                "advice": "give the trained ones with --weights FILE.safetensors",
            }
        )
    if outputs != dataset.classes:
        effect = (
            "a further one can be an answer" if outputs > dataset.classes else "the others are always wrong"
        )
        found.append(
            {
                "text": f"the model has {outputs} classes, {dataset.name} has {dataset.classes}: {effect}",
                "advice": "give the model the classes of the dataset",
            }
        )
    return found


def validation_warnings(origin: Origin, dataset: Dataset) -> list[dict[str, str]]:
    """Return what a reader must know of choices by validation images, which are a part of the training images."""
    if origin.spec is None:
        return []
    return [
        {
            "text": f"{origin.spec} was probably trained on the validation images, which are training images of "
            f"{dataset.name}: its accuracies on them may be too high",
            "advice": "compare networks by the test images (compression.test: all)",
        }
    ]

"""Compare the images of a job with those that its model was trained on, by their checksums.

A model folder records the checksum of its dataset (`made_by` of `model.json`; before 0.2, and of a study's trials, its
`environment.json`). Other images give figures of another question: they are taken only where the user names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robust_nas.errors import DataError, RunError
from robust_nas.run_folder import ENVIRONMENT, read_json

if TYPE_CHECKING:
    from robust_nas.data import Dataset
    from robust_nas.nets import Model

CHECKSUM = "dataset_checksum"


def names_data(overrides: Sequence[str]) -> bool:
    """Return whether overrides name the images, so that they may be others than those of the training."""
    keys = (text.partition("=")[0].strip() for text in overrides)
    return any(key in ("data", "data.name", "data.path") or key.startswith("data.options") for key in keys)


def training_checksum(model: Model) -> str | None:
    """Return the checksum of the images that a model was trained on; None where it has no record of them."""
    found = model.description.made_by.get(CHECKSUM)
    if found is None and model.folder is not None and (model.folder / ENVIRONMENT).is_file():
        try:
            found = read_json(model.folder / ENVIRONMENT).get(CHECKSUM)
        except RunError:  # damaged, and needed for nothing else here
            return None
    return found if isinstance(found, str) else None


def refuse_other_images_than_training(model: Model, dataset: Dataset, other_data: bool) -> None:
    """Raise `DataError` for other images than those of the training, unless `other_data` says that they are meant."""
    before = training_checksum(model)
    if other_data or before is None or dataset.has_checksum(before):
        return
    raise DataError(
        f"{model.folder or model.name}: was trained on other images than these of {dataset.name} (checksum "
        f"{before[:12]} then, {dataset.checksum[:12]} now); name the place of its own by data.path=PATH, or say by "
        "--other-data (Python: other_data=True) that other images are meant"
    )

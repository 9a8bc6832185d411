"""What to read and how to augment it, as option values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from robust_nas.config import Count, CountOrZero, Fraction01, Options, absolute_path, text_field, to_dict
from robust_nas.data.reader import DATASETS, DatasetReader
from robust_nas.errors import CodeRefusedError, ConfigError

MAX_PIXELS = 512  # of a padding or a cut-out: images of more would not fit into memory


class Augment(Options):
    """Batched augmentation on the device; zero or false leaves a step out."""

    # pixels of zero padding before a random crop back to size
    crop: Annotated[CountOrZero, Field(le=MAX_PIXELS)] = 0
    flip: bool = False  # horizontal, with probability 1/2
    cutout: Annotated[CountOrZero, Field(le=MAX_PIXELS)] = 0  # side in pixels of a square set to zero


class DataOptions(Options):
    """Which images, and how they are cut up."""

    name: str = "digits"  # of `DATASETS`, or `file.py:Reader`
    # folder or file of the images; None: the dataset's usual place, where it has one
    path: (
        Annotated[str, text_field(r"^[^\x00]+$", "a path has no zero byte and is not empty", min_length=1)]
        | None
    ) = None
    # keys of the dataset's reader
    options: dict[str, Any] = Field(default={}, exclude_if=lambda options: not options)
    limit: Count | None = None  # the largest number of training images, a seeded class-balanced choice
    validation: Annotated[Fraction01, Field(gt=0)] = 0.1  # share of the training images kept for choices
    normalise: Literal["none", "dataset"] = "none"  # first layer of the model: training mean and deviation
    augment: Augment = Augment()  # random changes of training images

    @field_validator("name")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        try:
            return str(DATASETS.get(name).model_fields["name"].default)  # of a file: with its absolute path
        except CodeRefusedError:
            raise
        except ConfigError as error:
            raise PydanticCustomError("method", "{text}", {"text": str(error)}) from None

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str | None) -> str | None:
        """Return the path as seen from the current folder: a config means the same images wherever it is read."""
        return None if path is None else absolute_path(path)

    @field_validator("options")
    @classmethod
    def _fit_the_reader(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in options:
            raise ValueError(
                "the key 'name' is not one of the reader's options; the dataset is named by data.name"
            )
        if "name" not in info.data:
            return options
        checked = to_dict(DATASETS.get(info.data["name"]).model_validate(options))
        # A path is absolute then, as `path` is; the rest stays as it was written, by which older folders are known.
        texts = {key: checked[key] for key, given in options.items() if isinstance(given, str)}
        return {**options, **{key: text for key, text in texts.items() if isinstance(text, str)}}

    @property
    def reader(self) -> DatasetReader:
        """Return the reader of the dataset."""
        return DATASETS.make(self.name, **self.options)

    def location(self) -> Path | None:
        """Return the path of the files, without reading them (`DatasetReader.location`)."""
        return self.reader.location(self.path)

"""Images that Python code hands to a job, in the place of those that its config names.

The config of the job then has the dataset `in-memory` with the checksum of the images, so that the folder is that of
these images alone: a resume with others is refused like one with another config.
"""

from __future__ import annotations

from typing import Any

from robust_nas.errors import ConfigError
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, choose_device


def with_own_data(
    config: RunConfig, context: JobContext | None, data: Any, test: Any
) -> tuple[RunConfig, JobContext | None]:
    """Return config and context of a job on `data` and `test` (`robust_nas.as_dataset`); as they are without `data`.

    Raises `ConfigError` for test images alone, and for images and a context together; `DataError` for images that are
    not taken.
    """
    if data is None:
        if test is not None:
            raise ConfigError("test: was given without data; hand the training images over as data=...")
        return config, context
    if context is not None:
        raise ConfigError("data: was given with a context, which holds images; give one of them")
    from robust_nas.data import as_dataset

    dataset = as_dataset(data, test)
    options = {"name": "in-memory", "path": None, "options": {"checksum": dataset.checksum}}
    config = config.model_copy(update={"data": config.data.model_copy(update=options)})
    limited = dataset.limited(config.data.limit, config.seed)
    context = JobContext(config, limited, choose_device(config.device), dataset)
    _ = context.images  # a validation split that cannot be cut is refused now
    return config, context

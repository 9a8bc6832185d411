"""What every job does before it starts: device, threads, dataset, normalisation, and the record of all that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from robust_nas.errors import ConfigError
from robust_nas.recipes import RunConfig
from robust_nas.runs import Run, environment, write_json

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Dataset


@contextlib.contextmanager
def prepared(run: Run, config: RunConfig) -> Iterator[tuple[Dataset, torch.device]]:
    """The dataset and the device; threads as the config says, inside; and `environment.json` of the run."""
    import torch

    from robust_nas.data import load_dataset

    device = choose_device(config.device)
    for precision in (config.search.precision, config.training.precision):
        if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError(f"precision: bf16 is not supported by {torch.cuda.get_device_name(device)}")
    dataset = load_dataset(config.data, seed=config.seed)
    before = torch.get_num_threads()
    try:
        if config.threads != "auto":
            torch.set_num_threads(config.threads)
        record = environment(
            config,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            dataset=dataset.name,
            dataset_checksum=dataset.checksum,
            images={"train": len(dataset.train), "test": len(dataset.test)},
            splits={"seed": config.seed, "search_halves": 0.5, "validation": config.data.validation},
        )
        write_json(run.folder / "environment.json", record)
        yield dataset, device
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """The device that a config's `device` means. Raises `ConfigError` for a GPU that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    seen = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= seen:
        allowed = ", ".join(["auto", "cpu", *(f"cuda:{index}" for index in range(seen))])
        raise ConfigError(f"device: got {name!r}; this torch sees {seen} GPUs; allowed here: {allowed}")
    return device


def normalisation(config: RunConfig, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel that the model's first layer gets: the training set's, or 0 and 1."""
    from robust_nas.data import channel_statistics

    if config.data.normalise == "dataset":
        return channel_statistics(dataset.train)
    colours = dataset.shape[0]
    return (0.0,) * colours, (1.0,) * colours


def relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, so that a folder of results can be moved as a whole."""
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()

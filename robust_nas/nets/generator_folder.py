"""The generator folder: `generator.safetensors` and `generator.json`, each written atomically.

The description says what the generator is (its networks, the threat model, images and classes) and for which victim it
was trained, by the digest of the victim's network. Like a model folder it is checked before a tensor is allocated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from robust_nas.config import Count, CountOrZero, Options, Positive, check, expand_path, to_dict
from robust_nas.errors import CheckpointError, ConfigError, NoModelError
from robust_nas.nets.ai_gan import LEAST_SIDE, Generator
from robust_nas.nets.devices import usable_device
from robust_nas.nets.weights import load_tensors
from robust_nas.run_folder import CHECKPOINT, write_atomic

WEIGHTS, DESCRIPTION = "generator.safetensors", "generator.json"
Side = Annotated[Count, Field(ge=LEAST_SIDE)]


class Victim(Options):
    """For which network a generator was trained."""

    name: str
    digest: str  # of the network, `nets/digest.py`, without further facts: an attack sees no more
    model: str = ""  # the same of everything in its model folder; for the reader


class GeneratorDescription(Options):
    """A generator's sizes and bounds, and the victim that it was trained against."""

    schema_version: Literal[1] = 1
    method: Literal["ai-gan"] = "ai-gan"
    norm: Literal["linf", "l2"]
    eps: Positive
    input_shape: tuple[Count, Side, Side]
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    widths: tuple[Count, Count, Count] = (8, 16, 32)
    blocks: CountOrZero = 4
    victim: Victim
    made_by: dict[str, Any] = Field(default={})

    @property
    def classes(self) -> int:
        """Return the number of classes that it aims at."""
        return len(self.class_names)

    def build(self) -> Generator:
        """Return the generator, with torch's own random weights."""
        return Generator(
            self.input_shape,
            self.classes,
            norm=self.norm,
            eps=self.eps,
            widths=self.widths,
            blocks=self.blocks,
        )


@dataclass(frozen=True)
class StoredGenerator:
    """A generator with its description."""

    network: Generator
    description: GeneratorDescription


def save_generator(folder: Path, state: dict[str, Tensor], description: GeneratorDescription) -> None:
    """Write the files of a generator folder, each atomically; `state` is the generator's on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / DESCRIPTION, (json.dumps(to_dict(description), indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS, save(state, metadata={"format": "pt"}))


def load_generator(folder: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Return the generator of a folder, in eval mode. Errors as `read_generator`."""
    return read_generator(folder, device).network


def read_generator(folder: str | Path, device: torch.device | str = "cpu") -> StoredGenerator:
    """Return the generator of a folder with its description; it is in eval mode, and its parameters are frozen.

    Raises `CheckpointError` for a missing, damaged or foreign file, and `ConfigError` for a device that is not there.
    """
    folder, device = expand_path(folder), usable_device(device)
    description = read_description(folder)
    with torch.device("meta"):
        expected = description.build().state_dict()
    state = load_tensors(folder / WEIGHTS, expected)
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{folder / WEIGHTS}: {broken[0]} holds NaN or infinite values")
    with torch.device("meta"):
        network = description.build()
    network.load_state_dict(state, assign=True)
    return StoredGenerator(network.to(device).eval().requires_grad_(requires_grad=False), description)


def read_description(folder: Path) -> GeneratorDescription:
    """Return the description of the generator in a folder. Raises `CheckpointError`."""
    missing = [name for name in (WEIGHTS, DESCRIPTION) if not (folder / name).is_file()]
    if missing:
        unfinished = "; it holds an unfinished training, continue it with --resume"
        inner = unfinished if (folder / CHECKPOINT).is_file() else ""
        raise NoModelError(f"{folder}: no generator folder, {', '.join(missing)} is missing{inner}")
    path = folder / DESCRIPTION
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    try:
        return check(GeneratorDescription, tree, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None

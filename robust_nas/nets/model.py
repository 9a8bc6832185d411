"""The model folder: `architecture.yaml`, `model.safetensors`, `model.json`; saved atomically, rebuilt bit for bit.

Names and shapes of the stored tensors are compared with the architecture's (built on torch's meta device) before any
tensor is allocated or copied.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from robust_nas.config import Count, Number, Options, Positive, check, to_tree
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.nets.build import build_network
from robust_nas.nets.network import CellNetwork
from robust_nas.runs import write_atomic
from robust_nas.spaces import CellArchitecture, load_architecture

ARCHITECTURE, WEIGHTS, DESCRIPTION = "architecture.yaml", "model.safetensors", "model.json"
MAX_HEADER_BYTES = 100_000_000


class ModelDescription(Options):
    """What belongs to the model and not to the architecture: input, classes, normalisation, and its making."""

    schema_version: Literal[1] = 1
    input_shape: tuple[Count, Count, Count]
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    made_by: dict[str, Any] = {}


@dataclass(frozen=True)
class Model:
    """A network with the architecture and the description it was built from."""

    network: CellNetwork
    architecture: CellArchitecture
    description: ModelDescription
    folder: Path | None = field(default=None)


def inference_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a model keeps: all but the auxiliary head, on the CPU, contiguous."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith("auxiliary.")
    }


def save_model(
    folder: Path,
    architecture: CellArchitecture,
    state: dict[str, torch.Tensor],
    description: ModelDescription,
) -> None:
    """Writes the three files of a model folder, each atomically; `state` as `inference_state` gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ARCHITECTURE, architecture.to_yaml().encode())
    write_atomic(folder / DESCRIPTION, (json.dumps(to_tree(description), indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS, save(state, metadata={"format": "pt"}))


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The trained network of a model folder, in eval mode. Errors as `read_model`."""
    return read_model(folder, device).network


def read_model(folder: str | Path, device: torch.device | str = "cpu") -> Model:
    """The model of a folder, in eval mode.

    Raises `CheckpointError` for a missing, damaged or foreign file, `ArchitectureError` for a malformed architecture.
    """
    folder = Path(folder)
    missing = [name for name in (ARCHITECTURE, WEIGHTS, DESCRIPTION) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: no model folder, {', '.join(missing)} is missing")
    architecture = load_architecture(folder / ARCHITECTURE)
    description = _read_description(folder / DESCRIPTION)
    colours = description.input_shape[0]
    if len(description.mean) != colours or len(description.std) != colours:
        raise CheckpointError(f"{folder / DESCRIPTION}: mean and std need {colours} numbers, one per channel")

    def build() -> CellNetwork:
        return build_network(
            architecture,
            input_shape=description.input_shape,
            classes=len(description.class_names),
            mean=description.mean,
            std=description.std,
        )

    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    check_shapes(folder / WEIGHTS, expected)
    network = build()
    try:
        state = load_file(folder / WEIGHTS)
        network.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: cannot be loaded: {error}") from None
    bad = [
        name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise CheckpointError(f"{folder / WEIGHTS}: {bad[0]} holds NaN or infinite values")
    return Model(network.to(device).eval(), architecture, description, folder)


def _read_description(path: Path) -> ModelDescription:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    try:
        return check(ModelDescription, tree, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def check_shapes(path: Path, expected: dict[str, tuple[int, ...]]) -> None:
    """Compares a safetensors header with names and shapes, before any tensor is read.

    Raises `CheckpointError` with the first differences.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
        found = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise CheckpointError(f"{path}: no safetensors file: {error}") from None
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is foreign" for name in found if name not in expected]
    problems += [
        f"{name} has shape {list(found[name])}, the architecture needs {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: does not fit the architecture: {'; '.join(problems[:3])}{more}")

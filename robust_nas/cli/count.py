"""`robust-nas count`: parameters and MACs, analytically, without torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common
from robust_nas.errors import ArchitectureError, CheckpointError, ConfigError

if TYPE_CHECKING:
    from robust_nas.spaces import Architecture

Input = Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")]
Classes = Annotated[int, typer.Option(help="Number of classes.", min=1)]
Cells = Annotated[int | None, typer.Option(help="Number of cells instead of the architecture's own.", min=1)]
Channels = Annotated[int | None, typer.Option(help="Channels instead of the architecture's own.", min=1)]


def command(
    architectures: Annotated[
        list[str], typer.Argument(help="Shipped names, wrn-D-k, YAML files, or model folders.")
    ],
    input: Annotated[
        str | None, typer.Option(help="Channels x height x width; default 3x32x32, or a model folder's own.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; default 10, or its own.", min=1)
    ] = None,
    cells: Cells = None,
    channels: Channels = None,
    json: common.Json = False,
) -> None:
    """Count parameters and MACs (multiply-adds of convolutions and linear layers; FLOPs = 2 x MACs).

    Example: [bold]robust-nas count arnas wrn-28-10 --input 3x32x32 --json[/bold]

    In Python: robust_nas.count(robust_nas.load_architecture("arnas"))
    """
    from robust_nas.spaces import count, load_architecture

    rows = []
    for name in architectures:
        architecture = _resized(load_architecture(name), cells, channels)
        own_shape, own_classes = _model_size(Path(name))
        shape = input_shape(input) if input else own_shape
        cost = count(architecture, shape, classes or own_classes)
        rows.append((architecture.name, shape, classes or own_classes, cost))
    if json:
        common.print_json(
            [{"name": name, "params": cost.params, "macs": cost.macs} for name, _, _, cost in rows]
        )
        return
    common.table(
        "convolutions and linear layers, no auxiliary head",
        ("architecture", "input", "classes", "params", "MACs"),
        [
            [name, "x".join(map(str, shape)), str(number), f"{cost.params:,}", f"{cost.macs / 1e6:,.2f} M"]
            for name, shape, number, cost in rows
        ],
    )


def _resized(architecture: Architecture, cells: int | None, channels: int | None) -> Architecture:
    """The architecture at another size, where one is asked for. Raises `ArchitectureError`."""
    from robust_nas.spaces import CellArchitecture

    if cells is None and channels is None:
        return architecture
    if not isinstance(architecture, CellArchitecture):
        flags = {"--cells": cells, "--channels": channels}
        given = " ".join(f"{flag} {value}" for flag, value in flags.items() if value is not None)
        raise ArchitectureError(
            f"{given}: {architecture.name} is {architecture.called}, sized by its own depth and width; "
            "leave the flag out, or name cell architectures alone"
        )
    return architecture.resized(cells, channels)


def _model_size(folder: Path) -> tuple[tuple[int, int, int], int]:
    """Input shape and number of classes of a model folder; CIFAR-10's for anything else."""
    if not (folder / "model.json").is_file():
        return (3, 32, 32), 10
    from robust_nas.runs import read_json

    tree = read_json(folder / "model.json")
    try:
        colours, height, width = tree["input_shape"]
        return (int(colours), int(height), int(width)), len(tree["class_names"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{folder / 'model.json'}: holds no input_shape and class_names") from None


def input_shape(text: str) -> tuple[int, int, int]:
    """(C, H, W) of a text such as `3x32x32`. Raises `ConfigError`."""
    parts = re.fullmatch(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})", text)
    if parts is None:
        raise ConfigError(f"--input: got {text!r}; channels x height x width is needed, such as 3x32x32")
    return int(parts[1]), int(parts[2]), int(parts[3])

"""`robust-nas count`: parameters and MACs, analytically, without torch."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from robust_nas.cli import common
from robust_nas.errors import ConfigError

Input = Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")]
Classes = Annotated[int, typer.Option(help="Number of classes.", min=1)]
Cells = Annotated[int | None, typer.Option(help="Number of cells instead of the architecture's own.", min=1)]
Channels = Annotated[int | None, typer.Option(help="Channels instead of the architecture's own.", min=1)]


def command(
    architectures: Annotated[list[str], typer.Argument(help="Shipped names, YAML files, or model folders.")],
    input: Input = "3x32x32",
    classes: Classes = 10,
    cells: Cells = None,
    channels: Channels = None,
    json: common.Json = False,
) -> None:
    """Count parameters and MACs (multiply-adds of convolutions and linear layers; FLOPs = 2 x MACs).

    Example: [bold]robust-nas count arnas darts_v2 --input 3x32x32 --json[/bold]

    In Python: robust_nas.count(robust_nas.load_architecture("arnas"))
    """
    from robust_nas.spaces import count, load_architecture

    shape = input_shape(input)
    found = [load_architecture(name).resized(cells, channels) for name in architectures]
    costs = [(architecture.name, count(architecture, shape, classes)) for architecture in found]
    if json:
        common.print_json([{"name": name, "params": cost.params, "macs": cost.macs} for name, cost in costs])
        return
    lines = [[name, f"{cost.params:,}", f"{cost.macs / 1e6:,.2f} M"] for name, cost in costs]
    common.table(
        f"input {input}, {classes} classes, no auxiliary head", ("architecture", "params", "MACs"), lines
    )


def input_shape(text: str) -> tuple[int, int, int]:
    """(C, H, W) of a text such as `3x32x32`. Raises `ConfigError`."""
    parts = re.fullmatch(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})", text)
    if parts is None:
        raise ConfigError(f"--input: got {text!r}; channels x height x width is needed, such as 3x32x32")
    return int(parts[1]), int(parts[2]), int(parts[3])

"""`robust-nas count`: parameters and MACs of networks and their stages, analytically, without torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.errors import ArchitectureError, CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robust_nas.spaces import Architecture

Shape = tuple[int, int, int]
ARCHITECTURE = "architecture.yaml"

Input = Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")]
Classes = Annotated[int, typer.Option(help="Number of classes.", min=1)]
Cells = Annotated[int | None, typer.Option(help="Number of cells instead of the architecture's own.", min=1)]
Channels = Annotated[int | None, typer.Option(help="Channels instead of the architecture's own.", min=1)]


def command(
    architectures: Annotated[
        list[str],
        typer.Argument(help="Shipped names, names of a family (wrn-D-k), YAML files, or folders of runs."),
    ],
    input: Annotated[
        str | None,
        typer.Option(
            callback=common.filled, help="Channels x height x width; default 3x32x32, or a run folder's own."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; default 10, or its own.", min=1)
    ] = None,
    cells: Cells = None,
    channels: Channels = None,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Count parameters and MACs (multiply-adds of convolutions and linear layers; FLOPs = 2 x MACs), stage by stage.

    Example: [bold]robust-nas count arnas wrn-28-10 --input 3x32x32 --json[/bold]

    In Python: robust_nas.count(robust_nas.load_architecture("arnas")), and robust_nas.spaces.parts for the stages
    """
    from robust_nas.config import expand_path
    from robust_nas.spaces import load_architecture
    from robust_nas.spaces.families import architecture_folder

    rows = []
    for name in architectures:
        architecture = _resized(load_architecture(name), cells, channels)
        own_shape, own_classes = _own_size(architecture_folder(name) or expand_path(name))
        shape = input_shape(input) if input else own_shape
        rows.append((architecture, shape, classes or own_classes))
    if json:
        common.print_json([_tree(*row) for row in rows])
        return
    _show_overview(rows)
    for row in rows:
        print()
        _show_stages(*row)


def _tree(architecture: Architecture, shape: Shape, classes: int) -> dict[str, Any]:
    """Return what `--json` prints of an architecture."""
    from robust_nas.spaces import count, parts
    from robust_nas.spaces.rules import depth_share, rule_checks, wd_ratio

    return {
        "name": architecture.name,
        **count(architecture, shape, classes)._asdict(),
        "stages": [
            {"name": part.name, **part.cost._asdict()} for part in parts(architecture, shape, classes)
        ],
        "r_d": depth_share(architecture),
        "wd_ratio": wd_ratio(architecture),
        "rules": [check._asdict() for check in rule_checks(architecture)],
    }


def _show_overview(rows: Sequence[tuple[Architecture, Shape, int]]) -> None:
    from robust_nas.spaces import count

    costs = [count(*row) for row in rows]
    common.table(
        "convolutions and linear layers, no auxiliary head",
        ("architecture", "input", "classes", "params", "MACs"),
        [
            [found.name, "x".join(map(str, shape)), str(classes), f"{cost.params:,}", _millions(cost.macs)]
            for (found, shape, classes), cost in zip(rows, costs, strict=True)
        ],
    )


def _show_stages(architecture: Architecture, shape: Shape, classes: int) -> None:
    """Print where parameters and MACs are, and what the rules of width and depth say."""
    from robust_nas.spaces import count, parts
    from robust_nas.spaces.rules import depth_share, rule_checks

    total = count(architecture, shape, classes)
    common.table(
        f"{architecture.name}: {architecture.describe()}",
        ("part", "params", "share", "MACs", "share"),
        [
            [
                name,
                f"{cost.params:,}",
                common.percent(cost.params / total.params),
                _millions(cost.macs),
                common.percent(cost.macs / total.macs),
            ]
            for name, cost in parts(architecture, shape, classes)
        ],
    )
    r_d = depth_share(architecture)
    if r_d is not None:
        print(f"r_D = sum D / (sum D + sum W) = {r_d:.3f}")
    for check in rule_checks(architecture):
        says = "holds" if check.holds else "does not hold"
        print(f"rule {check.rule}: {check.value:.3f}, {says} (accepted: {check.accepted})")


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.2f} M"


def _resized(architecture: Architecture, cells: int | None, channels: int | None) -> Architecture:
    """Return the architecture at another size, where one is asked for. Raises `ArchitectureError`."""
    if cells is None and channels is None:
        return architecture
    if not architecture.has_cells:
        flags = {"--cells": cells, "--channels": channels}
        given = " ".join(f"{flag} {value}" for flag, value in flags.items() if value is not None)
        raise ArchitectureError(
            f"{given}: {architecture.name} is {architecture.called}, sized by its own depth and width; "
            "leave the flag out, or name cell architectures alone"
        )
    return architecture.resized(cells, channels)


def _own_size(place: Path) -> tuple[tuple[int, int, int], int]:
    """Return input shape and number of classes of the folder of a model or search; CIFAR-10's for anything else."""
    from robust_nas.run_folder import read_json

    folder = place.parent if place.name == ARCHITECTURE and place.is_file() else place
    for name, key in (("model.json", "class_names"), ("result.json", "classes")):
        path = folder / name
        tree = read_json(path) if path.is_file() else {}
        if name == "result.json" and "input_shape" not in tree:
            continue  # of an earlier version, or of another job
        if tree:
            try:
                channels, height, width = map(int, tree["input_shape"])
                classes = tree[key]
                return (channels, height, width), classes if isinstance(classes, int) else len(classes)
            except (KeyError, TypeError, ValueError):
                raise CheckpointError(f"{path}: holds no input_shape and {key}") from None
    return (3, 32, 32), 10


def input_shape(text: str) -> tuple[int, int, int]:
    """Return (C, H, W) of a text such as `3x32x32`. Raises `ConfigError`."""
    parts = re.fullmatch(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})", text)
    if parts is None:
        raise ConfigError(f"--input: got {text!r}; channels x height x width is needed, such as 3x32x32")
    return int(parts[1]), int(parts[2]), int(parts[3])

"""The flags that choose an engine, shared by the verbs whose trials run on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robust_nas.cli import common
from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from robust_nas.execution import Engine

EngineName = Annotated[Literal["local", "ray"], typer.Option(help="Where trials run.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes of the local engine; default 2.", min=1)]
Address = Annotated[
    str | None,
    typer.Option(callback=common.filled, help="Of a running Ray cluster; default: a new one here."),
]
Cpus = Annotated[float | None, typer.Option(help="CPUs of a trial, for Ray; default 1.", min=0)]
Gpus = Annotated[
    float | None, typer.Option(help="GPUs of a trial, for Ray; fractions share one; default 0.", min=0)
]
Retries = Annotated[
    int | None, typer.Option(help="How often a trial whose worker died is tried again.", min=0)
]


def engine_of(
    name: str,
    workers: int | None,
    address: str | None,
    cpus: float | None,
    gpus: float | None,
    retries: int | None,
) -> Engine:
    """Return the engine that the flags describe. Raises `ConfigError` for a flag of the other one."""
    from robust_nas.execution import LocalEngine, RayEngine

    local = {"--workers": workers}
    cluster = {"--ray-address": address, "--cpus": cpus, "--gpus": gpus}
    for flag, value in (local if name == "ray" else cluster).items():
        if value is not None:
            other = "the local engine" if name == "ray" else "ray"
            raise ConfigError(
                f"{flag}: got {value} for engine {name}; it is for {other}: change --engine, or leave it out"
            )
    given = {"workers": workers, "address": address, "cpus": cpus, "gpus": gpus, "retries": retries}
    options = {key: value for key, value in given.items() if value is not None}
    return RayEngine(**options) if name == "ray" else LocalEngine(**options)

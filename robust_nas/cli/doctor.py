"""`robust-nas doctor`: what this machine has, and the command that adds what is missing."""

from __future__ import annotations

import typer

from robust_nas.cli import common


def command(json: common.Json = False) -> None:
    """Look at packages, devices, extras, datasets, plugins and disk; name what is missing and what adds it.

    Nothing is changed. Exits with 1 where something is missing without which nothing works.

    Example: [bold]robust-nas doctor[/bold]

    In Python: robust_nas.doctor()
    """
    from robust_nas.workflows.doctor import doctor

    findings = doctor()
    if json:
        common.print_json([finding._asdict() for finding in findings])
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            print(f"{one.state:<8} {one.what:<{width}}  {one.found}")
            if one.remedy and one.state != "ok":
                print(f"{'':<8} {'':<{width}}  -> {one.remedy}")
    if any(one.needed for one in findings):
        raise typer.Exit(1)

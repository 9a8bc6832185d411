"""`robust-nas run`: search, train, evaluate, compress, export, from one YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from robust_nas.cli import common, controls, search_verdict
from robust_nas.cli.dry_run import DryRunOption, show
from robust_nas.cli.report import show_path


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    out: Annotated[Path | None, common.out("run")] = None,
    allow_code: common.AllowCode = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    dry_run: DryRunOption = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Search, train, evaluate, compress (where the recipe says so) and export in one go, into results/<name>/.

    Example: [bold]robust-nas run quickstart search.epochs=3[/bold]

    Continue it: [bold]robust-nas run --resume results/quickstart[/bold]

    In Python: robust_nas.run(robust_nas.load_config("quickstart"))
    """
    config = common.resolve(recipe, overrides, print_config)
    mode = common.mode_of(resume, overwrite)
    if dry_run:
        from robust_nas.workflows.dry_run import dry_run_run

        show(dry_run_run(config, common.resumed(recipe, out, resume)), json)
        return
    from robust_nas.evaluation.report import RECORDED
    from robust_nas.records import read_json, read_record
    from robust_nas.workflows import pipeline
    from robust_nas.workflows.controls import COMPARED
    from robust_nas.workflows.places import of_config
    from robust_nas.workflows.search_verdict import JUDGED

    folder = of_config("run", common.resumed(recipe, out, resume), config.name)
    with common.progress(quiet, live) as report:
        summary = pipeline.run(
            config, folder, mode=mode, progress=report, warn=lambda message: common.say(f"warning: {message}")
        )
    if json:
        common.print_json(summary)
        return
    evaluated = read_record(folder / "evaluation", "evaluation.json", RECORDED)
    common.table(_title(summary, evaluated), HEADER, _rows(summary, evaluated))
    common.show_warnings(evaluated)
    if summary["verdict"] != "RELIABLE":
        common.show_findings(evaluated)
    if "controls" in summary["artifacts"]:
        controls.show(read_json(folder / summary["artifacts"]["controls"], COMPARED))
    if "search_verdict" in summary["artifacts"]:  # not of an earlier version
        judged = read_json(folder / summary["artifacts"]["search_verdict"], JUDGED)
        search_verdict.show(judged, folder, briefly=True)  # the report has the findings
    for name in SHOWN:
        if (path := summary["artifacts"].get(name)) is not None:
            print(f"{name.replace('_', ' '):<18} {folder / path}")
    print(f"{'summary':<18} {folder / 'summary.json'}")
    show_path(folder)


SHOWN = ("architecture", "model", "export", "compressed_model", "compressed_export")
HEADER = ("network", "", "params", "MACs", "kB", "clean", "worst case", "95 % interval", "verdict")


def _title(summary: Mapping[str, Any], evaluated: Mapping[str, Any]) -> str:
    """Return what the table is of."""
    seconds = summary["seconds_this_call"] or summary["seconds"]
    return (
        f"{summary['name']}: {summary['dataset']}, {summary['norm']} eps {summary['eps']:.4g}, seed {summary['seed']}; "
        f"{summary['attack']} on {evaluated['robust']['images']} images; {seconds:.0f} s"
    )


def _rows(summary: Mapping[str, Any], evaluated: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a network; a summary of an earlier version has that of the network that was found."""
    own = {
        "label": "found",
        "network": "",
        **{key: summary[key] for key in ("params", "macs")},
        "bytes": None,
        "clean": summary.get("clean", evaluated["clean"]["accuracy"]),
        "robust": evaluated["robust"]["accuracy"],
        "robust_interval": evaluated["robust"]["interval"],
        "verdict": evaluated["verdict"]["status"],
    }
    return [
        [
            row["label"],
            row["network"],
            f"{row['params']:,}",
            f"{row['macs'] / 1e6:.2f} M",
            "" if row["bytes"] is None else f"{row['bytes'] / 1000:.0f}",
            common.percent(row["clean"]),
            common.percent(row["robust"]),
            "{:.1f} .. {:.1f}".format(*(100 * end for end in row["robust_interval"])),
            row["verdict"],
        ]
        for row in summary.get("networks") or [own]
    ]

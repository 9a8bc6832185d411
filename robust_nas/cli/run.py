"""`robust-nas run`: search, train, evaluate, compress, export, from one YAML."""

from __future__ import annotations

from robust_nas.cli import common, compress, controls, search_verdict
from robust_nas.cli.dry_run import DryRunOption, show
from robust_nas.cli.report import show_path


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    out: common.Out = None,
    allow_code: common.AllowCode = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    dry_run: DryRunOption = False,
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
    from robust_nas.workflows.compress import COMPRESSED
    from robust_nas.workflows.config import RESULTS
    from robust_nas.workflows.controls import COMPARED
    from robust_nas.workflows.search_verdict import JUDGED

    folder = common.resumed(recipe, out, resume) or RESULTS / config.name
    with common.progress(quiet) as report:
        summary = pipeline.run(
            config, folder, mode=mode, progress=report, warn=lambda message: common.say(f"warning: {message}")
        )
    if json:
        common.print_json(summary)
        return
    tree = read_record(folder / "evaluation", "evaluation.json", RECORDED)
    title = (
        f"{summary['name']}: {summary['dataset']}, {summary['norm']} eps {summary['eps']:.4g}, seed {summary['seed']}, "
        f"{summary['params']:,} params, {summary['macs'] / 1e6:.2f} M MACs, {summary['seconds']:.0f} s"
    )
    common.table(title, common.ACCURACY_HEADER, common.accuracy_rows(tree))
    common.show_evidence(tree)
    if "controls" in summary["artifacts"]:
        controls.show(read_json(folder / summary["artifacts"]["controls"], COMPARED))
    if "search_verdict" in summary["artifacts"]:  # not of an earlier version
        search_verdict.show(read_json(folder / summary["artifacts"]["search_verdict"], JUDGED), folder)
    if "compressed" in summary:
        tree = read_record(folder / "compressed", "compression.json", COMPRESSED)
        compress.show(tree, folder / "compressed")
    for name, path in summary["artifacts"].items():
        print(f"{name.replace('_', ' '):<18} {folder / path}")
    print(f"{'summary':<18} {folder / 'summary.json'}")
    show_path(folder)

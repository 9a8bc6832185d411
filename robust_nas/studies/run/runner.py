"""Run a study from its config to its report: plan, run the missing trials, conclude.

Killed at any moment, it continues with `mode="resume"` to the same table: a trial is done when its outcome is on the
disk and the journal says so, and every other trial runs again (a trained epoch is not lost: its checkpoint stays).
A trial that diverged is not run again; one that failed is, when the study is resumed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robust_nas import figures, user_code
from robust_nas.config import check, expand_path, to_dict
from robust_nas.errors import ConfigError, StudyError
from robust_nas.execution import Engine, LocalEngine, Task
from robust_nas.files import is_writable, write_atomic, write_json
from robust_nas.records import ENVIRONMENT, RESULT, read_json
from robust_nas.run_folder import Mode, Progress, silent
from robust_nas.spaces import has_cells
from robust_nas.studies.config import Inherited, StudyConfig
from robust_nas.studies.cost import Rates
from robust_nas.studies.run.folder import (
    INHERITED,
    PLAN,
    SCORES,
    StudyFolder,
    is_study,
    names_of_trials,
    outcomes,
    read_plan,
)
from robust_nas.studies.run.plan import Plan, plan_on, plan_tree
from robust_nas.studies.run.trial import FUNCTION, payload_of
from robust_nas.workflows.context import (
    JobContext,
    load_context,
    refuse_early,
    refuse_few_images,
    refuse_other_images,
    refuse_precision,
)
from robust_nas.workflows.places import of_config
from robust_nas.workflows.report.at_end import watched
from robust_nas.workflows.report.part import Live

if TYPE_CHECKING:
    from robust_nas.execution import Ended
    from robust_nas.spaces import CellArchitecture

ANALYSIS, REPORT, TABLE = "analysis.json", "report.html", "table.csv"
COMPARISON = "comparison.csv"  # where training methods are what varies


def run_study(
    config: StudyConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Path:
    """Run every trial that is not done yet and write the report; return the folder (default `results/<name>`).

    Raises `StudyError` for a study that cannot be planned or costs more than the guard allows, before anything is
    written; and at the end, when not one trial is done.
    """
    engine = engine or LocalEngine()
    folder = of_config("study run", out, config.name)
    refuse_early(folder, mode)
    plan, context = plan_study(config)
    plan.refuse_above_guard()
    device = engine.device(config.device, context.device.type)
    refuse_other_images(folder, context.dataset)
    begun = mode == "resume" and is_study(folder)
    if begun:
        plan = replace(plan, names=names_of_trials(folder, {trial.id for _, trial in plan.trials}))
    if not begun:
        engine.refuse_unreachable()
    if engine.like_here is not None:
        _refuse_too_long(plan, context, set(outcomes(folder)[0]) if begun else set(), engine.like_here)
    with StudyFolder(folder, config, mode) as study:
        _record(study, plan, context, engine)
        with watched(study.folder, _write_live):
            _run_trials(study, plan, engine, _Place(device, context.dataset.checksum), progress)
        tree = _concluded(study.folder)
        with figures.optional("report"):  # `study report` writes it again
            _write_report(study.folder, tree, progress)
        if not tree["unfinished"]:
            study.finish(
                {"cost": tree["cost"], "rules": {rule["rule"]: rule["status"] for rule in tree["rules"]}},
                [ANALYSIS, REPORT, TABLE],
            )
    return folder


def plan_study(config: StudyConfig) -> tuple[Plan, JobContext]:
    """Return the plan of a study, and the dataset and device of the plan; nothing is written. Errors as `run_study`."""
    refuse_without_extra()
    context = load_context(config)
    plan = plan_on(config, context)
    for recipe in (point.training for point in plan.points):
        refuse_precision(recipe.precision, context.device)
        refuse_few_images(recipe, context)
    return plan, context


def report_study(
    folder: Path, progress: Progress = silent, *, allow_code: Iterable[Path | str] = ()
) -> dict[str, Any]:
    """Analyse the done trials of a study and write its report again; return the analysis tree.

    Where this process may not write into the folder, the report stays as it is.
    The study's designs and rules by `file.py:Class` run only where `allow_code` lists their files.
    Raises `StudyError` where there is no study, or none of its trials is done.
    """
    refuse_without_extra()
    refuse_no_study(folder)
    with user_code.allow_code(allow_code):
        if not is_writable(folder):
            return _analysed(folder)
        tree = _concluded(folder)
        _write_report(folder, tree, progress)
    if tree["unfinished"]:
        (folder / RESULT).unlink(missing_ok=True)  # the mark of a finished study
    return tree


def refuse_no_study(folder: Path) -> None:
    """Raise `StudyError` for a folder in which no study was begun."""
    if not is_study(folder) or not (folder / PLAN).is_file():
        raise StudyError(f"{folder}: holds no study; start one with robust-nas study run")


def refuse_without_extra() -> None:
    """Raise `ConfigError` where the libraries of the analysis are missing: before anything is trained."""
    missing = [name for name in ("scipy", "statsmodels") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"a study needs {', '.join(missing)}; pip install 'robust-nas[study]'")


def timed(plan: Plan, context: JobContext) -> Rates:
    """Return the rates of a short calibration on the plan's cheapest and dearest networks, on this process's device."""
    from robust_nas.studies.cost import calibrate

    ordered = sorted(plan.points, key=lambda point: point.macs)
    ends = dict.fromkeys((0, len(ordered) - 1))
    chosen = [(ordered[i].architecture, ordered[i].training, ordered[i].macs) for i in ends]
    return calibrate(chosen, plan.config.metrics.attack, context.dataset, context.device)


def _record(study: StudyFolder, plan: Plan, context: JobContext, engine: Engine) -> None:
    """Write the plan and the environment."""
    from robust_nas.environment import environment

    write_json(study.folder / PLAN, plan_tree(plan, None, 1))
    record = environment(
        study.config,
        device=str(context.device),
        engine=engine.text,
        dataset=context.dataset.name,
        dataset_checksum=context.dataset.checksum,
        images={"train": plan.train_images, "test": plan.test_images},
    )
    record["user_code"] |= study.started_with  # of its trials; a report may be by other code
    write_json(study.folder / ENVIRONMENT, record)


class _Place(NamedTuple):
    """The device and the images that every trial of a study has to share."""

    device: str  # its kind, or one GPU
    checksum: str  # of the dataset


def _refuse_too_long(plan: Plan, context: JobContext, done: set[str], workers: int) -> None:
    """Raise `StudyError` where the missing trials would take longer than the guard allows."""
    left = [point for point, trial in plan.trials if plan.name(trial) not in done]
    if left:
        rates = timed(plan, context)
        plan.refuse_above_guard(sum(plan.seconds(rates, point) for point in left) / workers)


def _run_trials(study: StudyFolder, plan: Plan, engine: Engine, place: _Place, progress: Progress) -> None:
    config = study.config
    done, others = outcomes(study.folder)
    named = {plan.name(trial): (point, trial) for point, trial in plan.trials}
    for name, (_, trial) in named.items():
        study.record(name, trial)
    ended = len(named.keys() & done.keys())
    ended += sum(others[name]["event"] == "diverged" for name in named.keys() & others.keys())
    pending = [
        Task(name, FUNCTION, payload_of(trial, config, place.device), study.trial_folder(name))
        for name, (_, trial) in named.items()
        if name not in done and others.get(name, {}).get("event") != "diverged"
    ]
    if pending:
        study.reopen()
    progress("study", ended, len(named), f"{len(pending)} trials to run")

    def started(trial: str, attempt: int) -> None:
        study.journal.add("started", trial, attempt=attempt)

    for end in engine.run(pending, started):
        point, trial = named[end.id]
        note = _close(study, end, place.checksum)
        ended += 1
        progress("study", ended, len(named), f"{point.name}, seed {trial.seed}: {note}")
    if config.inherited is not None:
        _score_inherited(study, plan, progress)


def _close(study: StudyFolder, end: Ended, checksum: str) -> str:
    """Write how a trial ended into the folder and the journal; return it in a few words."""
    if end.result is not None and end.result["dataset_checksum"] != checksum:
        message = f"{end.result['dataset']} holds other images where the trial ran than here"
        end = end._replace(result=None, error={"type": "DataError", "message": message})
    if end.result is not None:
        study.close_trial(end.id, end.result, end.seconds)
        return f"{end.seconds:.1f} s"
    error = end.error or {"type": "unknown", "message": ""}
    state = "diverged" if error["type"] == "DivergenceError" else "failed"
    reason = f"{error['type']}: {error['message']}"
    study.journal.add(state, end.id, reason=reason[:2000], attempts=end.attempts)
    return f"{state}, {reason[:120]}"


def _score_inherited(study: StudyFolder, plan: Plan, progress: Progress) -> None:
    """Score every genotype of the study once by the supernet's weights, and write the scores."""
    from robust_nas.studies.run.inherited import inherited_scores

    options, path = study.config.inherited, study.folder / INHERITED
    if options is None:
        return
    kept = read_json(path, SCORES) if path.is_file() else {}
    scores = kept["scores"] if kept and _same(kept["options"], options) else {}
    cells: dict[str, CellArchitecture] = {}
    for point in plan.points:
        if has_cells(point.architecture):
            cells.setdefault(str(point.factors["genotype"]), point.architecture)
    new = {genotype: cell for genotype, cell in cells.items() if genotype not in scores}
    found = inherited_scores(
        expand_path(options.search),
        list(new.values()),
        attack=options.attack,
        images=options.images,
        seed=study.config.seed,
        progress=progress,
    )
    fresh = {
        name: {key: value for key, value in one._asdict().items() if key != "name"}
        for name, one in zip(new, found, strict=True)
    }
    write_json(path, {"options": to_dict(options), "scores": {**scores, **fresh}})


def _same(kept: dict[str, Any], options: Inherited) -> bool:
    """Return whether stored options, read by today's defaults, are these."""
    try:
        return check(Inherited, kept, INHERITED) == options
    except ConfigError:
        return False


def _analysed(folder: Path) -> dict[str, Any]:
    """Return the analysis tree of what is in a folder; nothing is written."""
    from robust_nas.studies.report.analysis import analyse

    return analyse(folder)


def _concluded(folder: Path) -> dict[str, Any]:
    """Return the analysis tree of the done trials, and write it and its table."""
    from robust_nas.studies.report.comparison import comparison_csv
    from robust_nas.studies.report.page import table_csv

    tree = _analysed(folder)
    write_json(folder / ANALYSIS, tree)
    write_atomic(folder / TABLE, table_csv(tree).encode())
    if tree["comparison"] is not None:
        write_atomic(folder / COMPARISON, comparison_csv(tree["comparison"]).encode())
    return read_json(folder / ANALYSIS)


def _write_live(folder: Path, live: Live | None) -> None:
    """Write the report of the trials that are done, where there are any; nothing else is written."""
    from robust_nas.studies.report.analysis import stored_study
    from robust_nas.studies.report.page import write_report

    if outcomes(folder)[0]:
        write_report(_analysed(folder), folder, stored_study(folder).figures, live)


def _write_report(folder: Path, tree: dict[str, Any], progress: Progress) -> None:
    from robust_nas.studies.report.analysis import stored_study
    from robust_nas.studies.report.page import write_report

    progress("report", 0, 1)
    write_report(tree, folder, stored_study(folder).figures)
    progress("report", 1, 1)


def study_table(folder: Path, *, allow_code: Iterable[Path | str] = ()) -> str:
    """Return the tidy table of a study, as CSV: a row for every configuration and seed. As `report_study`."""
    from robust_nas.studies.report.page import table_csv

    refuse_without_extra()
    refuse_no_study(folder)
    with user_code.allow_code(allow_code):
        return table_csv(_analysed(folder))


def statuses(folder: Path) -> list[dict[str, Any]]:
    """Return every planned trial with its state (`planned`, `running or killed`, `done`, `failed`, `diverged`)."""
    refuse_no_study(folder)
    done, others = outcomes(folder)
    plan = read_plan(folder)
    rows = []
    for point in plan["points"]:
        for seed, trial in zip(plan["seeds"], point["trials"], strict=True):
            event = others.get(trial, {"event": "planned"})
            state = {"started": "running or killed"}.get(event["event"], event["event"])
            rows.append(
                {
                    "trial": trial,
                    "name": point["name"],
                    "seed": seed,
                    "state": "done" if trial in done else state,
                    "seconds": done[trial]["seconds"] if trial in done else None,
                    "reason": event.get("reason", ""),
                }
            )
    return rows

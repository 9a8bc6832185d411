"""Analyse the folder of a study: the tree that `analysis.json` holds and the report shows.

    schema_version, name, size, response, confidence, engine, device, version, recipe, attacks, threat_model, seeds
    chance       of the evaluated images (0..1), or None where trials of an earlier version do not give it
    data         {dataset, images, train_images}
    reference    the configuration that contrasts are held against
    points       every configuration: its costs, rules, metrics over seeds with intervals, gains by stage, curves, place
                 in the Pareto set (`pareto`: bootstrap probability); failed and diverged trials are counted;
                 `at_chance`: the accuracy that is not above chance, or None; such a configuration is on no front
    contrasts    every configuration against the reference, exploratory, Holm over all of them
    trends       the response against params and MACs
    optimum      of the response at a fixed budget, as the rule that asks for it judged it
    rules        the verdicts of the declared rules
    inherited    scores by a supernet's weights against training alone, where they were asked for
    comparison   of training methods, where they are what varies (`comparison.py`)
    cost, unfinished, limits

Contrasts, trends, the optimum and the rank correlation of inherited scores hold `undecided`: why nothing follows from
them, as one of their configurations is not above chance, or None. What was measured stays; p values are left out.
Accuracies are shares. Only done trials are analysed; nothing is filled in for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_nas import statistics
from robust_nas._version import __version__
from robust_nas.config import check, read_yaml, to_yaml_dict
from robust_nas.errors import RunError, StudyError
from robust_nas.records import read_environment
from robust_nas.run_folder import CONFIG
from robust_nas.statistics import Contrast, Measurements, Summary
from robust_nas.studies.config import Analysis, StudyConfig
from robust_nas.studies.report.chance import Chance, find_chance
from robust_nas.studies.report.comparison import compare_methods
from robust_nas.studies.report.contrasts import contrast_tree, exploratory
from robust_nas.studies.report.inherited import inherited_ranks
from robust_nas.studies.report.limits import changes, limits_of
from robust_nas.studies.rules import Evidence, Rule, RuleVerdict, verdicts
from robust_nas.studies.run.folder import outcomes, read_plan
from robust_nas.studies.run.journal import read_journal
from robust_nas.studies.run.trial import unpack
from robust_nas.training.losses import with_present_names

SCHEMA_VERSION = 1
OUTCOMES = {  # and how tables call their means; trials of earlier versions have no `attacked`
    "clean": "clean",
    "robust": "robust",
    "stable": "stability",
    "attacked": "attacked",
}

Tree = dict[str, Any]


def stored_study(folder: Path) -> StudyConfig:
    """Return the config that a study's folder was made with. Raises `ConfigError`."""
    return check(StudyConfig, with_present_names(read_yaml(folder / CONFIG)), str(folder / CONFIG))


def analyse(folder: Path) -> Tree:
    """Return the analysis of the done trials in a study's folder.

    Raises `StudyError` where not one trial is done, naming the first reason.
    """
    config = stored_study(folder)
    plan = read_plan(folder)
    done, others = outcomes(folder)
    rows = [_row(planned, plan["seeds"], done, others) for planned in plan["points"]]
    measured = [row["point"] for row in rows if row["point"] is not None]
    unfinished = _unfinished(plan, done, others)
    if not measured:
        first = unfinished[0] if unfinished else {"state": "planned", "reason": "it was never begun"}
        raise StudyError(f"{folder}: no trial is done; the first one is {first['state']}: {first['reason']}")
    found = [outcome for row in rows for outcome in row["outcomes"]]
    first, summaries = found[0], {point.name: _summaries(point, config) for point in measured}
    chance = find_chance(config, found, measured, summaries)
    environment = read_environment(folder)
    reference = str(plan["reference"])
    response, options = config.analysis.response, config.analysis
    devices = {outcome["device"] for outcome in found}
    rules = _rules(measured, options, reference, chance)
    fronts = _fronts(measured, config, chance)
    against = exploratory(measured, options.response, options, reference, chance)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "size": config.size,
        "response": response,
        "confidence": options.confidence,
        "engine": environment.get("engine"),
        "device": ", ".join(sorted(devices)),
        "version": __version__,
        "data": {
            "dataset": first["dataset"],
            "images": first["images"],
            "train_images": first["train_images"],
        },
        "threat_model": {
            "norm": config.evaluation.threat_model.norm,
            "eps": config.evaluation.threat_model.eps,
        },
        "attacks": list(dict.fromkeys(first["attacks"])),
        "seeds": plan["seeds"],
        "recipe": to_yaml_dict(config.training),
        "reference": reference,
        "chance": chance.value,
        "points": [_point_tree(row, fronts, summaries, chance) for row in rows],
        "contrasts": _contrasts(against, rules, chance),
        "trends": _trends(measured, options, chance),
        "optimum": next((_optimum(v.optimum, chance) for v in rules if v.optimum is not None), None),
        "rules": [verdict.to_dict() for verdict in rules],
        "inherited": inherited_ranks(folder, measured, config, chance),
        "comparison": compare_methods(rows, config, reference, chance),
        "cost": _cost(plan, done, others),
        "unfinished": unfinished,
        "limits": limits_of(config, rows, first, unfinished, chance) + changes(read_journal(folder)),
    }


def _row(planned: Tree, seeds: Sequence[int], done: Tree, others: Tree) -> Tree:
    """Return a configuration of the plan with the outcomes and measurements of its done trials, None without any."""
    pairs = [
        (seed, done[trial]) for seed, trial in zip(seeds, planned["trials"], strict=True) if trial in done
    ]
    states = [others.get(trial, {}).get("event") for trial in planned["trials"] if trial not in done]
    point = None
    if pairs:
        found = [outcome for _, outcome in pairs]
        shared = set.intersection(*(set(outcome["measures"]) for outcome in found))
        point = Measurements(
            name=planned["name"],
            arm=planned["arm"],
            factors=planned["factors"],
            seeds=tuple(seed for seed, _ in pairs),
            outcomes={
                key: np.array([_unpacked(outcome, key) for outcome in found])
                for key in OUTCOMES
                if all(key in outcome["outcomes"] for outcome in found)
            },
            measures={
                key: tuple(outcome["measures"][key] for outcome in found)
                for key in found[0]["measures"]
                if key in shared
            },
        )
    return {
        "planned": planned,
        "outcomes": [outcome for _, outcome in pairs],
        "seeds": [seed for seed, _ in pairs],
        "point": point,
        "failed": states.count("failed"),
        "diverged": states.count("diverged"),
    }


def _unpacked(outcome: Tree, key: str) -> NDArray[np.bool_]:
    try:
        return unpack(outcome["outcomes"][key], outcome["images"])
    except (KeyError, ValueError) as error:
        raise RunError(f"trial {outcome.get('trial')}: its outcome is damaged: {error}") from None


def _summaries(point: Measurements, config: StudyConfig) -> dict[str, Summary]:
    """Return the summary of every key of a configuration; an outcome goes before the measure that tables call alike."""
    options = config.analysis
    named = {OUTCOMES[key] for key in point.outcomes}
    measures = [key for key in point.measures if key not in named]
    return {
        key: statistics.summary(point, key, options.confidence, draws=options.draws)
        for key in (*point.outcomes, *measures)
    }


def _point_tree(
    row: Tree, fronts: dict[str, Tree], summaries: Mapping[str, Mapping[str, Summary]], chance: Chance
) -> Tree:
    planned = row["planned"]
    metrics = {
        OUTCOMES.get(key, key): summary.to_dict()
        for key, summary in summaries.get(planned["name"], {}).items()
    }
    return {
        "name": planned["name"],
        "arm": planned["arm"],
        "factors": planned["factors"],
        "params": planned["params"],
        "macs": planned["macs"],
        "stages": planned["stages"],
        "r_d": planned["factors"].get("r_d"),
        "wd_ratio": planned["factors"].get("wd_ratio"),
        "rules": planned["rules"],
        "seeds": row["seeds"],
        "failed": row["failed"],
        "diverged": row["diverged"],
        "metrics": metrics,
        "at_chance": chance.below.get(planned["name"]),
        "lip_stages": {
            when: _gains([outcome["lip_stages"][when] for outcome in row["outcomes"]])
            for when in ("initial", "trained")
        },
        "curves": [
            {"seed": seed, "epochs": outcome["curve"]}
            for seed, outcome in zip(row["seeds"], row["outcomes"], strict=True)
        ],
        **fronts.get(planned["name"], {"pareto": {}, "on_front": {}}),
    }


def _gains(per_seed: Sequence[Sequence[Tree]]) -> list[Tree]:
    """Return log gains by stage, each with its mean over the seeds that could be measured."""
    per_seed = [gains for gains in per_seed if gains]
    return [
        {
            "stage": stages[0]["stage"],
            "log_gain": fmean(stage["log_gain"] for stage in stages),
            "values": [stage["log_gain"] for stage in stages],
            "log_gain_rms": fmean(stage["log_gain_rms"] for stage in stages),
        }
        for stages in zip(*per_seed, strict=True)
    ]


def _fronts(measured: Sequence[Measurements], config: StudyConfig, chance: Chance) -> dict[str, Tree]:
    """Return whether a configuration above chance is in the Pareto set of each budget, and with which probability."""
    key = config.analysis.response
    measured = chance.above(measured)
    if not measured:
        return {}
    values = np.array([each.values(key).mean() for each in measured])
    trees: dict[str, Tree] = {point.name: {"pareto": {}, "on_front": {}} for point in measured}
    for cost in ("params", "macs"):
        front = statistics.pareto([each.number(cost) for each in measured], values)
        shares = statistics.pareto_membership(measured, cost, key, draws=config.analysis.draws)
        for point, inside, share in zip(measured, front, shares, strict=True):
            trees[point.name]["on_front"][cost] = bool(inside)
            trees[point.name]["pareto"][cost] = float(share)
    return trees


def _contrasts(found: list[Contrast], rules: Sequence[RuleVerdict], chance: Chance) -> list[Tree]:
    """Return the contrasts with the reference, then the comparisons of the rules that are not among them."""
    known = {(contrast.a, contrast.b) for contrast in found}
    compared = [contrast for verdict in rules for contrast in verdict.comparisons]
    further = [contrast for contrast in compared if (contrast.a, contrast.b) not in known]
    return [contrast_tree(each, chance) for each in [*found, *further]]


def _optimum(found: statistics.Optimum, chance: Chance) -> Tree:
    """Return the optimum; not an interior one where a configuration on its curve is not above chance."""
    reason = chance.reason(found.points)
    return {**found.to_dict(), "interior": found.interior and reason is None, "undecided": reason}


def _trends(measured: Sequence[Measurements], options: Analysis, chance: Chance) -> list[Tree]:
    """Return the trend of the response with each budget, where it has one."""
    reason = chance.reason([point.name for point in measured])

    def along(factor: str) -> Tree:
        found = statistics.trend(measured, factor, options.response, options.confidence, draws=options.draws)
        withheld = {} if reason is None else {"p": None}
        return {**found.to_dict(), **withheld, "undecided": reason}

    trees = (_or_none(partial(along, factor)) for factor in ("params", "macs"))
    return [tree for tree in trees if tree is not None]


def _rules(
    measured: Sequence[Measurements], options: Analysis, reference: str, chance: Chance
) -> list[RuleVerdict]:
    """Return the verdicts of the declared rules, against the reference where it has an outcome."""
    evidence = Evidence(
        points=measured,
        reference=reference if any(point.name == reference for point in measured) else None,
        key=options.response,
        confidence=options.confidence,
        margin=options.equivalence_margin,
        draws=options.draws,
        at_chance=chance.below,
    )
    return [verdict for rule in options.rules for verdict in _judged(rule, evidence)]


def _judged(rule: Rule, evidence: Evidence) -> list[RuleVerdict]:
    """Return the verdicts of a rule; undecided where the trials that it needs have no outcome (the plan had them)."""
    try:
        return verdicts([rule], evidence)
    except StudyError as error:
        return [
            rule.verdict(
                status="undecided",
                n=f"{len(evidence.points)} configurations",
                held="nothing",
                reason=str(error),
            )
        ]


def _or_none(call: Callable[[], Tree]) -> Tree | None:
    """Return the result, or None where there are too few configurations or seeds for one."""
    try:
        return call()
    except StudyError:
        return None


def _unfinished(plan: Tree, done: Tree, others: Tree) -> list[Tree]:
    """Return every planned trial without an outcome, and the reason."""
    found = []
    for planned in plan["points"]:
        for seed, trial in zip(plan["seeds"], planned["trials"], strict=True):
            if trial in done:
                continue
            event = others.get(trial, {"event": "planned"})
            state = "interrupted" if event["event"] == "started" else event["event"]
            usual = {"planned": "not begun", "interrupted": "begun, but not ended"}
            reason = event.get("reason") or usual.get(state, "no reason was recorded")
            found.append(
                {"trial": trial, "name": planned["name"], "seed": seed, "state": state, "reason": reason}
            )
    return found


def _cost(plan: Tree, done: Tree, others: Tree) -> Tree:
    ids = [trial for planned in plan["points"] for trial in planned["trials"]]
    states = [others[trial]["event"] for trial in ids if trial in others and trial not in done]
    finished = [trial for trial in ids if trial in done]
    trained = sum(
        planned["training_macs"] * sum(trial in done for trial in planned["trials"])
        for planned in plan["points"]
    )
    return {
        "planned": len(ids),
        "done": len(finished),
        "failed": states.count("failed"),
        "diverged": states.count("diverged"),
        "seconds": sum(done[trial]["seconds"] for trial in finished),
        "training_macs": trained,
    }

"""Run the attacks of an evaluation, each on what those before it left right: one row for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from robust_nas.attacks import Attack
from robust_nas.attacks.attacked_model import forwards_reported
from robust_nas.attacks.checks import check_perturbation
from robust_nas.attacks.compiling import many_gradients
from robust_nas.attacks.engine import seeded_globally
from robust_nas.config import to_dict
from robust_nas.errors import AttackError
from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.defended import kind_of
from robust_nas.evaluation.examples import SHOWN, Examples
from robust_nas.evaluation.inputs import model_errors
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.options import Step
from robust_nas.evaluation.query_curves import query_record, query_summary
from robust_nas.evaluation.rows import Row, Score
from robust_nas.evaluation.seeds import generator_of, seed_of
from robust_nas.evaluation.state import DOUBTS, EvaluationState
from robust_nas.evaluation.traces import TraceRecord, curve, traced

Planned = tuple[Attack, int]  # an attack and its share of the images


def planned(steps: Sequence[Step], available: int, classes: int) -> list[Planned]:
    """Return every attack with its share of the images; a suite such as AutoAttack as one attack after the other."""
    found = [
        (part, min(step.images or available, available)) for step in steps for part in step.attack.parts()
    ]
    if not found:
        raise AttackError(
            f"no attack of the list is meant for {classes} classes; see min_classes, max_classes"
        )
    return found


def run_attacks(
    attacks: Sequence[Planned],
    state: EvaluationState,
    order: Tensor,
    journal: Journal,
    report: Callable[[str, float], None],
) -> Examples:
    """Run every attack and add its row to the state; return the examples that a figure shows.

    `order` `[N]` are the places of the evaluated images in the test set.
    """
    examples = Examples(state)
    with many_gradients(input_gradients(attacks, state.batch_size)):
        _run_each(attacks, state, order, journal, report, examples)
    return examples


def input_gradients(attacks: Sequence[Planned], batch_size: int) -> int:
    """Return how many input gradients the attacks that may be compiled take together, at most."""
    return sum(
        attack.input_gradients * -(-share // batch_size)
        for attack, share in attacks
        if attack.compile != "never"
    )


def _run_each(
    attacks: Sequence[Planned],
    state: EvaluationState,
    order: Tensor,
    journal: Journal,
    report: Callable[[str, float], None],
    examples: Examples,
) -> None:
    """Run one attack after the other, and add its row."""
    for position, (attack, share) in enumerate(attacks):
        attacked = state.right[:share].nonzero().squeeze(1)
        report(attack.label, 0.0)
        records, before = [], 0.0
        # What a defended model gets beyond the list may have another length when the list is extended.
        known = repr(attack) if attack.on_twin or attack.weighs_rejection else attack.label
        for batch, indices, fraction in journal.batches(attacked, state.batch_size):
            name = f"attack {position} {known} {batch}"
            part = _fraction_in(attack, len(indices), before, fraction, report)
            with forwards_reported(part):
                record = journal.once(name, lambda: _attack_batch(state, attack, indices, name))  # noqa: B023
            state.right[indices] = record["right"]
            state.draws[:, indices] &= record["draws"]
            examples.keep(indices, record, attack.label)
            records.append(record)
            report(attack.label, before := fraction)
        if len(attacked) == 0:
            report(attack.label, 1.0)
        else:
            ended = f"attack {position} {known} ended{journal.extension}"
            end = journal.once(ended, lambda: {"untouched": state.watch.unchanged_values()})
            state.untouched &= end["untouched"]
        _add_row(state, attack, share, attacked, records, order)


def _fraction_in(
    attack: Attack, images: int, before: float, after: float, report: Callable[[str, float], None]
) -> Callable[[int], None]:
    """Return what reports how far an attack on one batch is, by its forward passes, between two fractions."""
    try:
        most = attack.passes.forward * attack.eot * images
    except NotImplementedError:  # of an attack of the user's own that does not say it
        return lambda passed: None
    passes = 0

    def passed(more: int) -> None:
        nonlocal passes
        passes += more
        report(attack.label, before + (after - before) * min(passes / max(most, 1), 1.0))

    return passed


def _attack_batch(state: EvaluationState, attack: Attack, indices: Tensor, name: str) -> dict[str, Any]:
    """Return what one attack did to one batch, as plain values."""
    x, y = state.batch(indices)
    seed = seed_of(state.seed, name)
    began = time.perf_counter()
    generator = generator_of(state.device, seed)
    if attack.external:
        generator.manual_seed(seed)  # another package draws by itself: what it takes is this seed
    # A module that is random and does not say so draws from the global generators, too.
    doing = f"{attack.label} fails on images"
    with model_errors(doing, x), seeded_globally(seed, state.device):
        result = attack.run(state.predictor, x, y, generator, trace=True)
    threat = state.threat_model
    largest = check_perturbation(result.images, x, threat.norm, threat.eps, attack.label)
    judge_seed = seed_of(state.seed, "judge", name)
    with model_errors(doing, x):
        judged = judge(state.predictor, result.images, y, draws=state.rule.draws, seed=judge_seed)
    shown = (indices < SHOWN).nonzero().squeeze(1)
    return {
        "right": judged.right.cpu(),
        "draws": judged.draws.cpu(),
        "not_finite": judged.not_finite,
        "largest": largest,
        "flags": list(result.flags),
        "how": result.model_form,
        "forwards": result.forwards + judged.forwards,
        "backwards": result.backwards,
        "trace": traced(result),
        "queries": query_record(result),
        "shown": {int(indices[i]): (result.images[i].cpu(), judged.logits[i].cpu()) for i in shown},
        "seconds": time.perf_counter() - began,
        # Of every part, because a resumed evaluation starts with the model as it was loaded.
        "untouched": state.watch.unchanged(),
    }


def _add_row(
    state: EvaluationState,
    attack: Attack,
    share: int,
    attacked: Tensor,
    records: list[dict[str, Any]],
    order: Tensor,
) -> None:
    """Add up the batches of one attack."""
    broken = attacked[~state.right[attacked]]
    traces = [record["trace"] for record in records if record["trace"] is not None]
    if traces:
        state.traces.append(TraceRecord.joined(attack, attacked, traces))
    for record in records:
        kind = None if attack.external else DOUBTS
        state.flags.update(dict.fromkeys((f"{attack.label}: {flag}" for flag in record["flags"]), kind))
        state.largest = max(state.largest, record["largest"])
        state.not_finite += record["not_finite"]
        state.untouched &= record["untouched"]
    state.rows.append(
        Row(
            label=attack.label,
            attack=attack,
            parameters={**to_dict(attack), **attack.settings(state.classes)},
            model_form="; ".join(dict.fromkeys(record["how"] for record in records))
            or "nothing was left to attack",
            images=share,
            attacked=len(attacked),
            broken=len(broken),
            share=score(state.right[:share]),
            common=score(state.right[: state.common]),
            seconds=sum(record["seconds"] for record in records),
            forwards=sum(record["forwards"] for record in records),
            backwards=sum(record["backwards"] for record in records),
            broken_indices=tuple(order[broken].tolist()),
            trace=tuple(curve(state.traces[-1])) if traces else (),
            runs=state.traces[-1].runs if traces else None,
            # An earlier version's journal has no record of them.
            queries=query_summary([record.get("queries") for record in records], state.threat_model.eps),
            kind=kind_of(attack, state.predictor),
        )
    )


def score(right: Tensor) -> Score:
    """Return the count of right examples `[N]`."""
    return Score(correct=int(right.sum()), images=len(right))

"""Measure a model next to its twin, batch by batch, through the journal.

The twin of a defended model is its network without the defence, of a Bayesian network the one of its mean weights.
The budget: the first `MOST` images of the order, each once through the inner attack on the twin and once through the
adaptive attack, with their options in the list; certificates on the first `CERTIFIED`, with the
draws of the defence. It is spent whatever the findings may cost, and recorded. B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from robust_nas.attacks import APGD, Attack, Predictor, Unaware, attack_mode
from robust_nas.attacks.twin import has_twin, twin_of
from robust_nas.config import to_dict
from robust_nas.defences import Defence, Defended
from robust_nas.evaluation.accuracy import Judged, judge
from robust_nas.evaluation.attack_rows import score
from robust_nas.evaluation.defended import defended_in, inner_attack, joint_attack, kind_of, strongest
from robust_nas.evaluation.inputs import model_errors
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.rows import Row
from robust_nas.evaluation.seeds import generator_of, seed_of
from robust_nas.evaluation.side_by_side import Certified, Scores, SideBySide
from robust_nas.evaluation.state import EvaluationState

MOST = 128  # images under both attacks
CERTIFIED = 64  # images with certificates
NAME = "side by side"


def compared(
    state: EvaluationState, journal: Journal, report: Callable[[str, float], None]
) -> SideBySide | None:
    """Return what both attacks break; None for a model without a twin."""
    if not has_twin(state.predictor.module):
        return None
    defended = defended_in(state.predictor)
    inner, adaptive = attacks_of(state)
    records = []
    report(NAME, 0.0)
    for batch, indices, fraction in journal.batches(state.select("all")[:MOST], state.batch_size):
        name = f"{NAME} {inner!r} {adaptive!r} {batch}"
        records.append(
            journal.once(name, lambda: _batch(state, inner, adaptive, indices, name))  # noqa: B023
        )
        report(NAME, fraction)
    state.untouched &= all(record["untouched"] for record in records)
    joined = {key: torch.cat([record[key] for record in records]) for key in records[0]["kept"]}
    scores = {key: joined.pop(key) for key in Scores.__annotations__ if key in joined}  # all of them, or none
    return SideBySide(
        inner=inner,
        unaware=Unaware(**state.limits, attack=inner),
        adaptive=adaptive,
        left=state.right[: len(joined["clean"])].clone(),
        **joined,
        scores=Scores(**scores) if scores else None,
        certified=_certified(state, defended, journal)
        if defended is not None and _defence(defended).certifies
        else None,
        passes=sum(record["passes"] for record in records),
        seconds=sum(record["seconds"] for record in records),
    )


def add_to_worst_case(state: EvaluationState, found: SideBySide, order: Tensor) -> None:
    """Count what the comparison broke and the list left right: a row for each of its attacks that broke such an image.

    The worst case is over all attempts. The passes are in the section `defence`. Answers of a random rule are left out:
    by chance alone more attempts turn more of them. `order` `[N]` as in `run_attacks`.
    """
    if state.predictor.random:
        return
    count = min(len(found.clean), state.common)  # images that every attack of the list had in its share
    for attack, right in ((found.unaware, found.unaware_right), (found.adaptive, found.adaptive_right)):
        before = state.right[:count].clone()
        broken = (before & ~right[:count]).nonzero().squeeze(1)
        if not len(broken):
            continue
        state.right[:count] &= right[:count]
        state.draws[:, :count] &= right[:count]
        state.rows.append(
            Row(
                label=f"{attack.label}, alone",
                attack=attack,
                parameters={**to_dict(attack), **attack.settings(state.classes)},
                model_form="of the section defence",
                images=count,
                attacked=int(before.sum()),
                broken=len(broken),
                share=score(state.right[:count]),
                common=score(state.right[: state.common]),
                seconds=0.0,
                forwards=0,
                backwards=0,
                broken_indices=tuple(order[broken].tolist()),
                kind=kind_of(attack, state.predictor),
            )
        )


def attacks_of(state: EvaluationState) -> tuple[Attack, Attack]:
    """Return the attack on the twin, and the one on the model itself.

    They are the strongest of the list; on a detector the second one is the joint attack.
    """
    single = strongest(state.attacks) or APGD(**state.limits, eot=state.eot)
    joint = joint_attack(state.attacks, state.limits) if state.predictor.abstains else None
    return inner_attack(state.attacks, state.limits), joint or single


def _defence(defended: Defended) -> Defence:
    return cast(Defence, defended.defence)


def _batch(
    state: EvaluationState, inner: Attack, adaptive: Attack, indices: Tensor, name: str
) -> dict[str, Any]:
    """Return what is right, `[B]` each, and of a detector the scores; `kept` names what is joined."""
    began = time.perf_counter()
    x, y = state.batch(indices)
    twin = Predictor.of(cast(nn.Module, twin_of(state.predictor.module)))
    with model_errors(f"{NAME}: attacks fail on images", x):
        of_twin = inner.run(twin, x, y, generator_of(state.device, state.seed, name, "unaware"))
        of_model = adaptive.run(
            state.predictor, x, y, generator_of(state.device, state.seed, name, "adaptive")
        )
        before, after = judge(twin, x, y), judge(twin, of_twin.images, y)
        unaware, own = (
            judge(
                state.predictor,
                images,
                y,
                draws=state.rule.draws,
                seed=seed_of(state.seed, "judge", name, kind),
            )
            for kind, images in (("unaware", of_twin.images), ("adaptive", of_model.images))
        )
    clean = state.clean_right[indices]
    kept = {
        "clean": clean,
        "unaware_right": clean & unaware.right.cpu(),
        "adaptive_right": clean & own.right.cpu(),
        "twin_clean": before.right.cpu(),
        "twin_right": (before.right & after.right).cpu(),
    }
    passes = sum(each.forwards + each.backwards for each in (of_twin, of_model))
    passes += sum(each.forwards for each in (before, after, unaware, own))
    defended = defended_in(state.predictor)
    scores = defended is not None and type(_defence(defended)).score is not Defence.score
    if defended is not None and scores and state.predictor.abstains:
        kept |= _scores(defended, x, of_twin.images, of_model.images)
        kept |= {
            "fooled_unaware": clean & _fooled(unaware, y),
            "fooled_adaptive": clean & _fooled(own, y),
        }
    return {
        **kept,
        "kept": list(kept),
        "passes": passes,
        "seconds": time.perf_counter() - began,
        "untouched": state.watch.unchanged_values(),
    }


def _fooled(judged: Judged, labels: Tensor) -> Tensor:
    """Return `[B]`, on the CPU, whether the class is wrong, whether or not the image is rejected."""
    return judged.logits[:, :-1].argmax(1).ne(labels).cpu()


def _scores(defended: Defended, clean: Tensor, unaware: Tensor, adaptive: Tensor) -> dict[str, Tensor]:
    """Return the detector's scores `[B]` of images as they are and attacked."""
    with torch.no_grad(), attack_mode(defended):
        return {
            key: _defence(defended).score(defended.module, images).float().cpu()
            for key, images in (("of_clean", clean), ("of_unaware", unaware), ("of_adaptive", adaptive))
        }


def _certified(state: EvaluationState, defended: Defended, journal: Journal) -> Certified:
    """Return the certificates of the first images; the defence draws from a generator of its own."""
    records = []
    for batch, indices, _ in journal.batches(state.select("all")[:CERTIFIED], state.batch_size):
        name = f"certificates {batch}"
        records.append(journal.once(name, lambda: _certificates(state, defended, indices, name)))  # noqa: B023
    return Certified(
        right=torch.cat([record["right"] for record in records]),
        radii=torch.cat([record["radii"] for record in records]),
        norm=records[0]["norm"],
        seconds=sum(record["seconds"] for record in records),
    )


def _certificates(state: EvaluationState, defended: Defended, indices: Tensor, name: str) -> dict[str, Any]:
    began = time.perf_counter()
    x, y = state.batch(indices)
    generator = generator_of(state.device, state.seed, name)
    certify = cast(Any, defended.defence).certify
    with torch.no_grad(), attack_mode(defended), model_errors("certificates fail on images", x):
        found = certify(defended, x, generator)
    return {
        "right": found.classes.cpu().eq(y.cpu()),
        "radii": found.radii.float().cpu(),
        "norm": str(found.norm),
        "seconds": time.perf_counter() - began,
    }

"""The protocol: clean accuracy, every attack on what those before it left, the worst case per example, findings.

The test images are taken in the order of a seeded permutation, so that an attack with a smaller share gets a
prefix of what an attack with a larger one gets. Within its share an attack gets only the examples that are
still right: an example that was misclassified clean, or broken by an earlier attack, is wrong for good. So

    row.attacked   how many of its share the attack got
    row.broken     how many of those it turned wrong
    row.own        what is right of those it got
    row.share      what is right of its share after it and all attacks before it
    row.common     the same on the common prefix, the smallest share of all: these never rise from row to row
    robust         the last row's `common`: right under every attack, per example

AutoAttack is spread over one row per attack of its suite. Success is judged by float32 forward passes of the
inference rule in eval mode, with fresh draws where it is random, on images whose perturbation is measured again
(Carlini et al., 2019). Every batch of every attack, and every check, is a part of its own in the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from robust_nas.attacks import Attack, ThreatModel
from robust_nas.attacks.predictor import as_module
from robust_nas.data import random_indices
from robust_nas.evaluation.accuracy import LabelledImages
from robust_nas.evaluation.attack_rows import run_attacks, score
from robust_nas.evaluation.checks import with_standard
from robust_nas.evaluation.comparison import add_to_worst_case, compared
from robust_nas.evaluation.defence_record import defence_record
from robust_nas.evaluation.defended import defended_in
from robust_nas.evaluation.inputs import chosen_device, dtypes, labelled, notes
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.evaluation.posterior_mean import posterior_mean_record
from robust_nas.evaluation.report import Evaluation
from robust_nas.evaluation.sanity import Collected, run_checks
from robust_nas.evaluation.start import Progress, start, with_rule
from robust_nas.evaluation.state import EvaluationState


def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor],
    data: LabelledImages | tuple[Any, Any] | Dataset[Any] | DataLoader[Any],
    threat_model: ThreatModel,
    suite: str | Path | Sequence[Step | Attack] = "cascade",
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> Evaluation:
    """Return the worst case per example of any torch module under a suite of attacks, findings and a verdict.

    Args:
        model: from images `[B, C, H, W]` in 0..1 to logits `[B, K]`, or a `Predictor` with another inference rule. A
            plain function is taken too; `Evaluation.notes` says what is not checked of it.
        data: an object with `pixels` (uint8, or float in 0..1, `[N, C, H, W]`) and `labels` (integers `[N]`), a pair of
            these, a torch `Dataset` of (image, label), or a `DataLoader` of such batches; tensors or NumPy arrays.
        threat_model: norm and eps, on the 0..1 scale.
        suite: `quick`, `cascade`, `autoattack`, `rand`, `transfer`, `black-box`, a YAML file, or a list of attacks
            or `Step`s.
        seed: of the order of the images, of the attacks and of a random rule's draws.
        device: where the images go; default: where the model's parameters are.
        progress: called as `progress(name, fraction)`.
        more: further fields of `EvaluationOptions`, such as `images`, `batch_size`, `findings`, `checks`, `deployed`.

    Raises:
        ConfigError: the options are not acceptable.
        AttackError: the inputs cannot be judged; raised before any attack starts where it can be known then.
    """
    named = {"suite": str(suite)} if isinstance(suite, str | Path) else {"attacks": tuple(map(_step, suite))}
    options = EvaluationOptions(threat_model=threat_model, **named, **more)
    return follow_protocol(
        as_module(model), labelled(data), options, seed=seed, device=device, progress=progress
    )


def _step(attack: Any) -> Any:
    return attack if isinstance(attack, Step | Mapping) else Step(attack=attack)


def follow_protocol(
    model: nn.Module,
    images: LabelledImages,
    options: EvaluationOptions,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return clean accuracy, a row per attack, robust accuracy (the worst case per example), findings and verdict.

    `images` should be the test set, and this its only use. `device` is where the images go (default: where
    the model's parameters are). `progress(name, fraction)` is called after every batch. The model is left as
    it was. Raises `AttackError` for inputs that cannot be judged, before any attack starts where it can be
    known then.
    """
    device = chosen_device(model, device)
    report = progress or (lambda name, fraction: None)
    journal = journal or Journal()
    order = random_indices(images.labels.numel(), options.images, seed)
    predictor, options = with_rule(model, options)
    state, clean, attacks = start(
        predictor, images, options, order, seed=seed, device=device, journal=journal, report=report
    )
    examples = run_attacks(attacks, state, order, journal, report)
    state.side_by_side = compared(state, journal, report)
    if state.side_by_side is not None:
        add_to_worst_case(state, state.side_by_side, order)
    report("findings", 0.0)
    collected = Collected()
    if options.findings != "none":
        spent = sum(row.forwards + row.backwards for row in state.rows)
        collected = run_checks(
            with_standard(options.checks),
            state,
            journal,
            lambda fraction: report("findings", fraction),
            budget=spent if options.findings == "budget" else math.inf,
        )
    report("findings", 1.0)
    common = state.common
    return Evaluation(
        options=options,
        clean=score(state.clean_right),
        clean_common=score(state.clean_right[:common]),
        rows=tuple(state.rows),
        robust=score(state.right[:common]),
        clean_wrong_indices=tuple(order[~state.clean_right].tolist()),
        findings=tuple(collected.findings),
        eps_curve=tuple(collected.eps_curve),
        examples=examples.shown(),
        findings_seconds=collected.seconds,
        findings_passes=collected.passes,
        clean_draws=tuple(clean["draws"].float().mean(1).tolist()) if predictor.random else (),
        robust_draws=tuple(state.draws[:, :common].float().mean(1).tolist()) if predictor.random else (),
        rejected=float(clean["rejected"].float().mean()) if predictor.abstains else None,
        classes=state.classes,
        chance=state.chance,
        seed=seed,
        device=str(device),
        model_dtypes=dtypes(predictor),
        notes=notes(predictor, images.pixels),
        eot_curve=tuple(collected.eot_curve),
        **_sections(state, clean["rejected"]),
    )


def _sections(state: EvaluationState, rejected: Tensor) -> dict[str, Any]:
    """Return the section on the comparison of a model with its twin; `rejected` `[N]` as in `defence_record`."""
    if state.side_by_side is None:
        return {}
    if defended_in(state.predictor) is None:
        return {"posterior_mean": posterior_mean_record(state.side_by_side)}
    return {"defence": defence_record(state, rejected, state.side_by_side)}

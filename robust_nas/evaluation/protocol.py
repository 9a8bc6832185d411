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
deployed rule in eval mode, with fresh draws where it is random, on images whose perturbation is measured anew
(Carlini et al., 2019). Every batch of every attack, and every finding, is a part of its own in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy

from robust_nas.attacks import GradientAttack, ThreatModel, Transfer
from robust_nas.attacks.checks import refuse_small_images
from robust_nas.attacks.engine import seeded_globally
from robust_nas.attacks.predictor import Predictor
from robust_nas.config import to_dict
from robust_nas.errors import AttackError, ConfigError, RobustNASError
from robust_nas.evaluation.autoattack import check_suite, run_autoattack, settings
from robust_nas.evaluation.examples import SHOWN, Examples
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.measure import Judged, check_perturbation, fingerprint, judge
from robust_nas.evaluation.options import AutoAttack, EvaluationOptions, OwnAttack, Step
from robust_nas.evaluation.report import Evaluation, Finding, Row, Score
from robust_nas.evaluation.seeds import generator_of, seed_of
from robust_nas.evaluation.state import LabelledImages, Progressed, as_float, check_images
from robust_nas.evaluation.traces import TraceRecord, curve, traced

Progress = Callable[[str, float], None]


def evaluate(
    model: nn.Module,
    data: LabelledImages,
    threat_model: ThreatModel,
    suite: str | Path | Sequence[Step | OwnAttack | AutoAttack] = "cascade",
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> Evaluation:
    """Attacks any torch module on labelled images: the worst case per example, findings and a verdict.

    Args:
        model: from images `[B, C, H, W]` in 0..1 to logits `[B, K]`, or a `Predictor` with another deployed rule.
        data: an object with `pixels` (uint8, or float in 0..1, `[N, C, H, W]`) and `labels` (int64 `[N]`).
        threat_model: norm and eps, on the 0..1 scale.
        suite: `quick`, `cascade`, `autoattack`, `rand`, `transfer`, a YAML file, or a list of attacks or `Step`s.
        seed: of the order of the images, of the attacks and of a random rule's draws.
        device: where the images go; default: where the model's parameters are.
        progress: called as `progress(name, fraction)`.
        more: further fields of `EvaluationOptions`, such as `images`, `batch_size`, `findings`, `deployed`.

    Raises:
        ConfigError: the options are not acceptable.
        AttackError: the inputs cannot be judged; raised before any attack starts where it can be known then.
    """
    named = {"suite": str(suite)} if isinstance(suite, str | Path) else {"attacks": tuple(map(_step, suite))}
    options = EvaluationOptions(threat_model=threat_model, **named, **more)
    return follow_protocol(model, data, options, seed=seed, device=device, progress=progress)


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
    """Clean accuracy, a row per attack, robust accuracy (the worst case per example), findings and verdict.

    `images` should be the test set, and this its only use. `device` is where the images go (default: where
    the model's parameters are). `progress(name, fraction)` is called after every batch. The model is left as
    it was. Raises `AttackError` for inputs that cannot be judged, before any attack starts where it can be
    known then.
    """
    from robust_nas.evaluation.findings import collect

    device = torch.device(device) if device is not None else _device_of(model)
    report = progress or (lambda name, fraction: None)
    journal = journal or Journal()
    pixels, labels = check_images(images)
    order = evaluation_order(len(labels), seed, options.images)
    predictor, options = _deployed(model, options)
    for key, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise AttackError(f"{key} has no shape yet; give the model a batch before it is evaluated")
    before = fingerprint(predictor)
    clean = journal.once(
        "clean",
        lambda: _clean(predictor, pixels[order], labels[order], options, seed, device, report, before),
    )
    classes = clean["logits"].shape[1] - predictor.abstains
    attacks = _spread(options, len(order), classes)
    state = Progressed(
        predictor=predictor,
        options=options,
        pixels=pixels[order],
        labels=labels[order],
        seed=seed,
        device=device,
        classes=classes,
        clean_logits=clean["logits"],
        clean_right=clean["right"],
        right=clean["right"].clone(),
        common=min(share for _, share in attacks),
        not_finite=int((~clean["logits"].isfinite().all(1)).sum()),
        before=before,
        untouched=clean["untouched"],
    )
    for attack, _ in attacks:
        refuse_undefined(attack, state.classes, tuple(pixels.shape[1:]), predictor.abstains)
    _refuse_surrogates(options, tuple(pixels.shape[1:]), state.classes)
    draws = clean["draws"].clone()  # [D, N] right in each draw under all attacks so far
    examples = Examples(state)
    for position, (attack, share) in enumerate(attacks):
        attacked = state.right[:share].nonzero().squeeze(1)
        report(attack.label, 0.0)
        records = []
        for number, (indices, fraction) in enumerate(_batches(attacked, options.batch_size)):
            name = f"attack {position} {attack.label} batch {number}"
            record = journal.once(name, lambda: _attack_batch(state, attack, indices, name))  # noqa: B023
            state.right[indices] = record["right"]
            draws[:, indices] &= record["draws"]
            examples.keep(indices, record, attack.label)
            records.append(record)
            report(attack.label, fraction)
        if len(attacked) == 0:
            report(attack.label, 1.0)
        _add_row(state, attack, share, attacked, records, order)
    report("findings", 0.0)
    found: list[Finding] = []
    passes, seconds = 0, 0.0
    eps_curve: list[dict[str, Any]] = []
    if options.findings != "none":
        collected = collect(state, journal, lambda fraction: report("findings", fraction))
        found, passes, seconds = collected.findings, collected.passes, collected.seconds
        eps_curve = collected.eps_curve
    report("findings", 1.0)
    common = state.common
    return Evaluation(
        options=options,
        clean=_score(state.clean_right),
        clean_common=_score(state.clean_right[:common]),
        rows=tuple(state.rows),
        robust=_score(state.right[:common]),
        clean_wrong_indices=tuple(order[~state.clean_right].tolist()),
        findings=tuple(found),
        eps_curve=tuple(eps_curve),
        examples=examples.shown(),
        findings_seconds=seconds,
        findings_passes=passes,
        clean_draws=tuple(clean["draws"].float().mean(1).tolist()) if predictor.random else (),
        robust_draws=tuple(draws[:, :common].float().mean(1).tolist()) if predictor.random else (),
        rejected=float(clean["rejected"].float().mean()) if predictor.abstains else None,
        classes=state.classes,
        chance=state.chance,
        seed=seed,
        device=str(device),
    )


def evaluation_order(available: int, seed: int, images: int | None = None) -> Tensor:
    """The indices of the images that an evaluation takes, in its order; `images` None means all of them."""
    return torch.randperm(available, generator=Generator().manual_seed(seed))[:images]


def _deployed(model: nn.Module, options: EvaluationOptions) -> tuple[Predictor, EvaluationOptions]:
    """The model with its rule, and the options with the same: theirs, or the model's own where it is a predictor."""
    declared = options.deployed
    if not isinstance(model, Predictor):
        return Predictor(model, samples=declared.samples, abstains=declared.abstains), options
    own = {"samples": model.samples, "abstains": model.abstains}
    for key, default in (("samples", None), ("abstains", False)):
        got = getattr(declared, key)
        if got not in (default, own[key]):
            raise ConfigError(
                f"deployed.{key}: got {got!r}, the predictor itself says {own[key]!r}; declare one of them"
            )
    return model, options.model_copy(update={"deployed": declared.model_copy(update=own)})


def _clean(
    predictor: Predictor,
    pixels: Tensor,
    labels: Tensor,
    options: EvaluationOptions,
    seed: int,
    device: torch.device,
    report: Progress,
    before: str,
) -> dict[str, Any]:
    """The answers on the images as they are, `[N]` each."""
    parts: list[Judged] = []
    for number, (indices, fraction) in enumerate(_batches(torch.arange(len(labels)), options.batch_size)):
        x, y = as_float(pixels[indices]).to(device), labels[indices].to(device)
        try:
            parts.append(
                judge(
                    predictor, x, y, draws=options.deployed.draws, seed=seed_of(seed, "judge clean", number)
                )
            )
        except (RobustNASError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a foreign module raises at images that it does not expect
            first = (str(error).splitlines() or [""])[0]
            raise AttackError(
                f"the model cannot take images of shape {tuple(pixels.shape[1:])}: "
                f"{type(error).__name__}: {first}"
            ) from None
        report("clean", fraction)
    return {
        "right": torch.cat([part.right for part in parts]).cpu(),
        "draws": torch.cat([part.draws for part in parts], dim=1).cpu(),
        "logits": torch.cat([part.logits for part in parts]).cpu(),
        "rejected": torch.cat([part.rejected for part in parts]).cpu(),
        "untouched": fingerprint(predictor) == before,
    }


def refuse_undefined(
    attack: OwnAttack | AutoAttack, classes: int, shape: tuple[int, ...], abstains: bool
) -> None:
    """Raises `AttackError` where an attack is not defined for such a model or images of `shape` (C, H, W)."""
    if isinstance(attack, AutoAttack):
        if abstains:
            raise AttackError(
                "autoattack knows no rejection, and this model abstains; use the suite cascade or a list"
            )
        check_suite(attack, classes, *shape[1:])
        return
    if classes < attack.least_classes:
        raise AttackError(
            f"{attack.label} needs at least {attack.least_classes} classes, the model has {classes}; "
            "list other attacks, or another loss or fewer targets"
        )
    refuse_small_images(attack, shape)


def _refuse_surrogates(options: EvaluationOptions, shape: tuple[int, ...], classes: int) -> None:
    """Raises `CheckpointError` for a surrogate that is no model, `AttackError` for one that does not fit."""
    from robust_nas.nets import read_model

    own = (step.attack.surrogates for step in options.steps if isinstance(step.attack, Transfer))
    for folder in dict.fromkeys(chain(options.surrogates, *own)):
        surrogate = read_model(Path(folder)).description
        if surrogate.input_shape != shape or len(surrogate.class_names) < classes:
            raise AttackError(
                f"surrogate {folder}: takes images of shape {surrogate.input_shape} and tells "
                f"{len(surrogate.class_names)} classes; these are {shape} of {classes}"
            )


def _attack_batch(
    state: Progressed, attack: OwnAttack | AutoAttack, indices: Tensor, name: str
) -> dict[str, Any]:
    """What one attack did to one batch, as plain values."""
    x, y = state.batch(indices)
    seed = seed_of(state.seed, name)
    began = time.perf_counter()
    flags: tuple[str, ...] = ()
    trace = None
    if isinstance(attack, AutoAttack):
        # The package averages its own passes, so it gets the module rather than the deployed rule.
        outcome = run_autoattack(attack, state.predictor.module, x, y, seed=seed % 2**31, batch_size=len(x))
        adversarial, forwards, backwards = outcome.images, outcome.forwards, outcome.backwards
        flags, how = outcome.flags, "as it is: by its authors' package"
    else:
        # A module that is random and does not say so draws from the global generators, too.
        with seeded_globally(seed, state.device):
            result = attack.run(state.predictor, x, y, generator_of(state.device, seed), trace=True)
        adversarial, forwards, backwards, how = (
            result.images,
            result.forwards,
            result.backwards,
            result.model_form,
        )
        trace = traced(result)
    threat = state.options.threat_model
    largest = check_perturbation(adversarial, x, threat.norm, threat.eps, attack.label)
    judged = judge(
        state.predictor,
        adversarial,
        y,
        draws=state.options.deployed.draws,
        seed=seed_of(state.seed, "judge", name),
    )
    shown = (indices < SHOWN).nonzero().squeeze(1)
    return {
        "right": judged.right.cpu(),
        "draws": judged.draws.cpu(),
        "not_finite": int((~judged.logits.isfinite().all(1)).sum()),
        "largest": largest,
        "flags": list(flags),
        "how": how,
        "forwards": forwards + judged.forwards,
        "backwards": backwards,
        "trace": trace,
        "shown": {int(indices[i]): (adversarial[i].cpu(), judged.logits[i].cpu()) for i in shown},
        "seconds": time.perf_counter() - began,
        # Of every part, because a resumed evaluation starts with the model as it was loaded.
        "untouched": fingerprint(state.predictor) == state.before,
    }


def _add_row(
    state: Progressed,
    attack: OwnAttack | AutoAttack,
    share: int,
    attacked: Tensor,
    records: list[dict[str, Any]],
    order: Tensor,
) -> None:
    """Adds up the batches of one attack."""
    broken = attacked[~state.right[attacked]]
    extra: dict[str, Any] = {}
    if isinstance(attack, AutoAttack):
        extra = settings(attack, state.classes)
    elif isinstance(attack, GradientAttack):
        extra = {"step_size": attack.step}
    traces = [record["trace"] for record in records if record["trace"] is not None]
    if traces and not isinstance(attack, AutoAttack):
        state.traces.append(TraceRecord.joined(attack, attacked, traces))
    for record in records:
        state.flags.update(dict.fromkeys(f"{attack.label}: {flag}" for flag in record["flags"]))
        state.largest = max(state.largest, record["largest"])
        state.not_finite += record["not_finite"]
        state.untouched &= record["untouched"]
    state.rows.append(
        Row(
            label=attack.label,
            attack=repr(attack),
            parameters={**to_dict(attack), **extra},
            how="; ".join(dict.fromkeys(record["how"] for record in records)) or "nothing was left to attack",
            images=share,
            attacked=len(attacked),
            broken=len(broken),
            share=_score(state.right[:share]),
            common=_score(state.right[: state.common]),
            seconds=sum(record["seconds"] for record in records),
            forwards=sum(record["forwards"] for record in records),
            backwards=sum(record["backwards"] for record in records),
            broken_indices=tuple(order[broken].tolist()),
            trace=tuple(curve(state.traces[-1])) if traces else (),
        )
    )


def _spread(
    options: EvaluationOptions, available: int, classes: int
) -> list[tuple[OwnAttack | AutoAttack, int]]:
    """Every attack with its share of the images; AutoAttack as one attack after the other."""
    spread: list[tuple[OwnAttack | AutoAttack, int]] = []
    for step in options.steps:
        if not step.suits(classes):
            continue
        share = min(step.images or available, available)
        parts = step.attack.parts() if isinstance(step.attack, AutoAttack) else (step.attack,)
        spread += [(part, share) for part in parts]
    if not spread:
        raise AttackError(
            f"no attack of the list is meant for {classes} classes; see min_classes, max_classes"
        )
    return spread


def _batches(indices: Tensor, size: int) -> list[tuple[Tensor, float]]:
    """The batches of indices, each with the fraction that is done after it."""
    if len(indices) == 0:
        return []
    done = 0
    batches = []
    for part in torch.split(indices, size):
        done += len(part)
        batches.append((part, done / len(indices)))
    return batches


def _score(right: Tensor) -> Score:
    return Score(correct=int(right.sum()), images=len(right))


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")

"""Start an evaluation: check model, images and attacks, and take the answers on the images as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.attacks import Predictor, attack_mode
from robust_nas.attacks.engine import seeded_globally
from robust_nas.attacks.predictor import own_samples
from robust_nas.defences import Defended
from robust_nas.errors import ConfigError
from robust_nas.evaluation.accuracy import Judged, LabelledImages, as_float, judge
from robust_nas.evaluation.attack_rows import Planned, planned
from robust_nas.evaluation.defended import with_baselines
from robust_nas.evaluation.fingerprint import ModelWatch
from robust_nas.evaluation.inputs import dtypes, model_errors, refuse_without_values
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.evaluation.seeds import seed_of
from robust_nas.evaluation.state import EvaluationState, check_images
from robust_nas.evaluation.surrogates import read_surrogates, refuse_misfits

Progress = Callable[[str, float], None]


def with_rule(model: nn.Module, options: EvaluationOptions) -> tuple[Predictor, EvaluationOptions]:
    """Return the model with its inference rule, and the options with the same: theirs, or the predictor's own."""
    declared = options.deployed
    if isinstance(model, Defended) or own_samples(model) is not None:
        model = Predictor.of(model)
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


def start(
    predictor: Predictor,
    images: LabelledImages,
    options: EvaluationOptions,
    order: Tensor,
    *,
    seed: int,
    device: torch.device,
    journal: Journal,
    report: Progress,
) -> tuple[EvaluationState, dict[str, Any], list[Planned]]:
    """Return the state before the first attack, the record of the clean answers, and the attacks with their shares.

    `order` `[N]` are the images that are taken. Raises `AttackError` for what cannot be attacked or judged.
    """
    pixels, labels = check_images(images)
    pixels, labels = pixels[order], labels[order]
    refuse_without_values(predictor.module)
    for step in options.steps:
        step.attack.refuse_model(predictor.module)
        share = slice(step.images)
        step.attack.refuse_images(pixels[share], labels[share])
    surrogates = read_surrogates(options)
    refuse_misfits(surrogates, tuple(pixels.shape[1:]), int(labels.max()) + 1)
    watch = ModelWatch(predictor)
    clean = _clean(predictor, pixels, labels, options, seed, device, journal, report, watch)
    classes = clean["logits"].shape[1] - predictor.abstains
    listed = [step for step in options.steps if step.suits(classes)]
    steps = with_baselines(listed, predictor, options)
    attacks = planned(steps, len(order), classes)
    state = EvaluationState(
        predictor=predictor,
        threat_model=options.threat_model,
        attacks=tuple(step.attack for step in steps),
        surrogates=options.surrogates,
        rule=options.deployed,
        batch_size=options.batch_size,
        pixels=pixels,
        labels=labels,
        seed=seed,
        device=device,
        classes=classes,
        clean_logits=clean["logits"],
        clean_right=clean["right"],
        right=clean["right"].clone(),
        draws=clean["draws"].clone(),
        common=min(share for _, share in attacks),
        not_finite=clean["not_finite"],
        watch=watch,
        untouched=clean["untouched"],
        full_depth=options.findings == "full",
    )
    for attack, _ in attacks:
        attack.refuse_undefined(classes, state.shape, predictor.abstains)
    refuse_misfits(surrogates, state.shape, classes)
    return state, clean, attacks


def _clean(
    predictor: Predictor,
    pixels: Tensor,
    labels: Tensor,
    options: EvaluationOptions,
    seed: int,
    device: torch.device,
    journal: Journal,
    report: Progress,
    watch: ModelWatch,
) -> dict[str, Any]:
    """Return the answers on the images as they are, `[N]` each."""

    def answers(stage: str, indices: Tensor) -> dict[str, Any]:
        x, y = pixels[indices], labels[indices]
        found = _answers(predictor, x, y, options, seed, stage, device, report, watch)
        if any(step.attack.access == "gradient" for step in options.steps):
            _refuse_no_grad_mode(predictor, as_float(x[:1]).to(device))
        return found

    records = [
        journal.once(f"clean{stage}", lambda: answers(stage, indices))  # noqa: B023
        for stage, indices in journal.stages(torch.arange(len(labels)))
    ]
    for record in records:
        # Journals of earlier versions hold the logits of the first draw alone.
        record.setdefault("not_finite", int((~record["logits"].isfinite().all(1)).sum()))
    joined = {
        key: torch.cat([record[key] for record in records], dim=int(key == "draws"))
        for key in ("right", "draws", "logits", "rejected")
    }
    return {
        **joined,
        "not_finite": sum(record["not_finite"] for record in records),
        "untouched": all(record["untouched"] for record in records),
    }


def _answers(
    predictor: Predictor,
    pixels: Tensor,
    labels: Tensor,
    options: EvaluationOptions,
    seed: int,
    stage: str,
    device: torch.device,
    report: Progress,
    watch: ModelWatch,
) -> dict[str, Any]:
    """Return the answers of one stage; a last pass of one image is not kept.

    Attacks take what is left of a batch, down to one image: a model that fails there is refused before the first.
    """
    parts: list[Judged] = []
    split = torch.split(torch.arange(len(labels)), options.batch_size)
    more = [split[0][:1]] if len(split[0]) > 1 else []
    for number, indices in enumerate([*split, *more]):
        x, y = as_float(pixels[indices]).to(device), labels[indices].to(device)
        part_seed = seed_of(seed, f"judge clean{stage}", number)
        with model_errors("the model cannot take images", x, _hint(predictor, len(x), len(split[0]))):
            parts.append(judge(predictor, x, y, draws=options.deployed.draws, seed=part_seed))
        report("clean", min(1.0, (number + 1) / len(split)))
    judged = Judged.joined(parts[: len(split)])
    return {
        "right": judged.right,
        "draws": judged.draws,
        "logits": judged.logits,
        "not_finite": judged.not_finite,
        "rejected": judged.rejected,
        "untouched": watch.unchanged_values(),
    }


def _refuse_no_grad_mode(predictor: Predictor, x: Tensor) -> None:
    """Raise `AttackError` for a model that fails where gradients are recorded; attacks would find out too late."""
    doing = "gradient attacks need a model that takes images with requires_grad; it fails on images"
    with (
        model_errors(doing, x),
        attack_mode(predictor),
        seeded_globally(0, x.device),
        torch.enable_grad(),
    ):
        predictor(x.requires_grad_().clone())


def _hint(predictor: Predictor, batch: int, first: int) -> str:
    """Return what may be the cause of a model's failure at `batch` images; the first batch has `first` of them."""
    if batch != first:
        return f"; it took {first} images before, and a batch may have any number"
    others = [dtype for dtype in dtypes(predictor) if dtype != "float32"]
    if others:
        return f"; its parameters are {' and '.join(others)}, images are float32: use model.float(), or convert inside"
    return ""

"""How an attack runs: the inputs checked, the model put into the state in which it is attacked, the result packed.

    run(options, model, images, labels)   opens the attacked model, calls `options.perturb`, and counts what it took

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.attacked_model import AttackedModel, Trace, attack_mode, candidate_autocast
from robust_nas.attacks.checks import AttackOptions, check_inputs, own_generator
from robust_nas.attacks.compiling import compiled_copy, refuse_uncompiled
from robust_nas.attacks.folding import folded
from robust_nas.attacks.predictor import Predictor, as_module
from robust_nas.attacks.query_log import QueryTrace
from robust_nas.errors import AttackError

Perturb = Callable[[AttackedModel], Tensor]  # the adversarial images [B, C, H, W]


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack gives back, and what it took."""

    images: Tensor  # [B, C, H, W], detached, in the dtype and memory format of the images attacked
    model_form: str  # "folded", "folded, compiled", "folded, not compiled: <reason>" or "as it is: <reason>"
    forwards: int  # forward passes of one image
    backwards: int  # backward passes of one image, to the input alone
    loss: Tensor | None = None  # [runs, steps + 1, B] of every candidate, where a trace was asked for
    wrong: Tensor | None = None  # [runs, steps + 1, B] whether the candidate was misclassified
    flags: tuple[str, ...] = ()  # what the attack itself has to say of the model or its result
    queries: Tensor | None = (
        None  # [B] int64, of an attack that sees scores or decisions alone (`query_log.py`)
    )
    query_trace: QueryTrace | None = None  # how near it had come at which query, where a trace was asked for


def run(
    options: AttackOptions,
    perturb: Perturb,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None = None,
    *,
    trace: bool = False,
    checked: bool = False,
) -> AttackResult:
    """Return the outcome of an attack; the model comes back as it was: modes, `requires_grad`, buffers and gradients.

    `checked`: images and labels are known to be sound; nothing is read back from the device to look at them.
    `perturb` is the algorithm. The caller may be inside `no_grad` or `inference_mode`.
    Raises `AttackError` for inputs that cannot be attacked.
    """
    with opened(options, model, images, labels, generator, trace=trace, checked=checked) as target:
        found = perturb(target)
        loss, wrong = target.trace.stacked() if target.trace else (None, None)
        return AttackResult(
            images=torch.empty_like(images, requires_grad=False).copy_(found).detach(),
            model_form=target.model_form,
            forwards=target.forwards,
            backwards=target.backwards,
            loss=loss,
            wrong=wrong,
            flags=tuple(dict.fromkeys(target.flags)),
            queries=target.queries.used if target.queries else None,
            query_trace=target.queries.trace() if target.queries else None,
        )


@contextlib.contextmanager
def opened(
    options: AttackOptions,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None,
    *,
    trace: bool = False,
    checked: bool = False,
) -> Iterator[AttackedModel]:
    """The target of an attack, the inputs checked and the model in the state in which it is attacked."""
    model = as_module(model)
    with torch.inference_mode(mode=False), torch.enable_grad(), attack_mode(model, options.bn):
        # Clones, because a tensor made under inference_mode cannot be saved for the backward pass.
        images, labels = images.detach().clone(), labels.clone()
        last_label = check_inputs(images, labels, checked)
        options.refuse_small_images(tuple(images.shape[1:]))
        generator = own_generator(generator, images)
        predictor = Predictor.of(model)
        network, compiled, form = predictor.module, None, "as it is: it is random"
        if not options.fold or options.bn != "eval":
            form = "as it is: " + ("with batch statistics" if options.fold else "not asked to fold")
        elif predictor.random:
            refuse_uncompiled(options, form)
        else:
            copy, form, compilations = folded(
                predictor.module, images, once=checked, twice_differentiated=options.twice_differentiated
            )
            if copy is None:
                refuse_uncompiled(options, form)
            else:
                network = copy
                images = images.contiguous(memory_format=torch.channels_last)
                with candidate_autocast(options, images):
                    compiled, why = compiled_copy(options, copy, compilations, images)
                form += ", compiled" if compiled else f", not compiled: {why}" if why else ""
        with _own_draws(predictor, images, generator):
            record = Trace() if trace else None
            target = AttackedModel(
                options, predictor, network, compiled, form, images, labels, generator, record, last_label
            )
            _refuse_few_classes(target)
            yield target


def _refuse_few_classes(target: AttackedModel) -> None:
    least = target.options.least_classes
    if least <= 2:
        return
    few = len(target.images) if target.options.bn == "batch" else 1  # one image may have no batch statistics
    classes = target.logits(target.images[:few], target.labels[:few]).shape[1]
    if classes < least:
        raise AttackError(
            f"{target.options.label} needs at least {least} classes, the model has {classes}; "
            "fewer targets or another loss need less"
        )


@contextlib.contextmanager
def _own_draws(predictor: Predictor, images: Tensor, generator: Generator) -> Iterator[None]:
    """The draws of a random model, which come from torch's global generators, follow from the attack's generator."""
    if not predictor.random:
        yield
        return
    with seeded_globally(
        int(torch.randint(2**62, (), generator=generator, device=images.device)), images.device
    ):
        yield


@contextlib.contextmanager
def seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded inside, and as they were outside: a random module knows no others."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield

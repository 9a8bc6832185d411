"""The model as an attack sees it: logits and input gradients of the deployed rule, counted, and nothing touched.

    run(options, model, images, labels)   opens the target, calls `search(options, target)` of the attack's family,
                                          and packs what came out

B batch, C channels, H height, W width, K classes, J losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.candidates import Best
from robust_nas.attacks.folding import folded
from robust_nas.attacks.inputs import check_inputs, check_logits, own_generator, refuse_small_images
from robust_nas.attacks.losses import Loss, margin
from robust_nas.attacks.mode import attack_mode
from robust_nas.attacks.options import Attack
from robust_nas.attacks.predictor import Predictor, averaged, merged
from robust_nas.errors import AttackError


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack gives back, and what it took."""

    images: Tensor  # [B, C, H, W], detached, in the dtype and memory format of the images attacked
    how: str  # "folded", or "as it is: <reason>"
    forwards: int  # forward passes of one image
    backwards: int  # backward passes of one image, to the input alone
    loss: Tensor | None = None  # [runs, steps + 1, B] of every candidate, where a trace was asked for
    wrong: Tensor | None = None  # [runs, steps + 1, B] whether the candidate was misclassified


class Trace:
    """The loss and the error of every candidate, step by step and run by run."""

    def __init__(self) -> None:
        self.runs: list[list[tuple[Tensor, Tensor]]] = []

    def begin(self) -> None:
        """Starts the next run: a restart, or the next target class."""
        self.runs.append([])

    def add(self, loss: Tensor, wrong: Tensor) -> None:
        """Loss `[B]` and error `[B]` of one candidate per example."""
        self.runs[-1].append((loss.detach().float().cpu(), wrong.cpu()))

    def stacked(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Losses and errors `[runs, steps + 1, B]`; None where nothing was traced."""
        if not self.runs or not self.runs[0]:
            return None, None
        loss, wrong = (
            torch.stack([torch.stack([entry[which] for entry in run]) for run in self.runs])
            for which in (0, 1)
        )
        return loss, wrong


class Target:
    """A model under attack. `images` and `labels` are clones; `generator` is the one source of the attack's draws."""

    def __init__(
        self,
        options: Attack,
        predictor: Predictor,
        network: nn.Module,
        how: str,
        images: Tensor,
        labels: Tensor,
        generator: Generator,
        trace: Trace | None,
        last_label: int,
    ) -> None:
        self.options, self.predictor, self.network, self.how = options, predictor, network, how
        self.images, self.labels, self.generator, self.trace = images, labels, generator, trace
        self.passes = max(options.eot, 1)
        # Whether a search sees logits of a lower precision than a verdict.
        self.lower = options.precision == "bf16" or torch.is_autocast_enabled(images.device.type)
        self.last_label = last_label
        self.forwards = self.backwards = 0

    def _logits(self, x: Tensor, labels: Tensor, *, search: bool) -> Tensor:
        network = self.network if search else self.predictor.module
        # A search in float32 is made in the precision that the caller's autocast says; a verdict never is.
        half = self.options.precision == "bf16"
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=search and half)
        with contextlib.nullcontext() if search and not half else autocast:
            logits = check_logits(averaged(network, x, self.passes), x, self.last_label)
        self.forwards += len(x) * self.passes
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return merged(logits, labels) if self.predictor.abstains else logits

    def logits(self, x: Tensor, labels: Tensor | None = None, *, search: bool = False) -> Tensor:
        """Logits `[B, K]` of the model itself, at least float32, without a gradient.

        `search` allows the folded copy and the precision of the candidates. `labels` are those of `x` where it is
        not the whole batch.
        """
        with torch.no_grad():
            return self._logits(x, self.labels if labels is None else labels, search=search)

    def judged(self, x: Tensor, logits: Tensor, labels: Tensor, among: Tensor | None = None) -> Tensor:
        """Those logits of a search `[B, K]`, by the model itself in float32 where they say "misclassified".

        A search that stops at its first success asks for this: next to the boundary, the rounding of the copy decides.
        `among` `[B]` are the examples whose verdict matters; None: all.
        """
        if not self.lower and self.network is self.predictor.module:
            return logits
        doubtful = logits.argmax(1) != labels
        rows = (doubtful if among is None else doubtful & among).nonzero().squeeze(1)
        if len(rows) == 0:
            return logits
        return logits.index_put((rows,), self.logits(x[rows], labels[rows]).to(logits.dtype))

    def no_worse(self, x: Tensor, clean: Tensor) -> Tensor:
        """Per example the better of `x` and the image itself, whose logits are `clean`, where a search was in bf16."""
        if not self.lower:
            return x
        best = Best(self.images, self.labels)
        best.offer(self.images, clean, margin(clean, self.labels))
        logits = self.logits(x)
        best.offer(x, logits, margin(logits, self.labels))
        return best.images

    def gradient(self, x: Tensor, loss: Loss, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[B, K]`, loss `[B]` and the gradient of its sum for `x`; zero where the model gives none."""
        logits, values, (gradient,) = self.gradients(x, lambda logits: loss(logits).unsqueeze(1), labels)
        return logits, values[:, 0], gradient

    def gradients(
        self, x: Tensor, losses: Loss, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits `[B, K]`, several losses `[B, J]`, and for each the gradient of its sum: one pass forward, J back."""
        x = x.detach().requires_grad_()
        logits = self._logits(x, self.labels if labels is None else labels, search=True)
        values = losses(logits)
        count = values.shape[1]
        gradients: list[Tensor] = []
        # One backward pass after the other: batched ones (vmap) do not know every operation, and hold J times
        # the memory.
        for which in range(count):
            gradient = None
            if values.requires_grad:  # a model that detaches gives none: the evaluation's findings say so
                (gradient,) = torch.autograd.grad(
                    values[:, which].sum(), x, allow_unused=True, retain_graph=which < count - 1
                )
                self.backwards += len(x) * self.passes
            gradients.append(torch.zeros_like(x) if gradient is None else gradient)
        return logits.detach(), values.detach(), gradients


Search = Callable[[Target], Tensor]  # the adversarial images [B, C, H, W]


def run(
    options: Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None = None,
    *,
    trace: bool = False,
    search: Search | None = None,
    trusted: bool = False,
) -> AttackResult:
    """The outcome of an attack; the model comes back as it was: modes, `requires_grad`, buffers and gradients.

    `trusted`: pixels and labels are known to be in their ranges; their values are not read back from the device.
    `search` is the attack's algorithm where it is not the one of its family. The caller may be inside `no_grad` or
    `inference_mode`. Raises `AttackError` for inputs that cannot be attacked.
    """
    if search is None:
        family: Any = import_module(f"robust_nas.attacks.{options.family}")
        search = partial(family.search, options)
    with opened(options, model, images, labels, generator, trace=trace, trusted=trusted) as target:
        found = search(target)
        loss, wrong = target.trace.stacked() if target.trace else (None, None)
        return AttackResult(
            images=torch.empty_like(images, requires_grad=False).copy_(found).detach(),
            how=target.how,
            forwards=target.forwards,
            backwards=target.backwards,
            loss=loss,
            wrong=wrong,
        )


@contextlib.contextmanager
def opened(
    options: Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None,
    *,
    trace: bool = False,
    trusted: bool = False,
) -> Iterator[Target]:
    """The target of an attack, the inputs checked and the model in the state in which it is attacked."""
    with torch.inference_mode(mode=False), torch.enable_grad(), attack_mode(model, options.bn):
        # Clones, because a tensor made under inference_mode cannot be saved for the backward pass.
        images, labels = images.detach().clone(), labels.clone()
        last_label = check_inputs(images, labels, trusted)
        refuse_small_images(options, tuple(images.shape[1:]))
        generator = own_generator(generator, images)
        predictor = Predictor.of(model)
        network, how = predictor.module, "as it is: it is random"
        if not options.fold or options.bn != "eval":
            how = "as it is: " + ("with batch statistics" if options.fold else "not asked to fold")
        elif not predictor.random:
            copy, how = folded(predictor.module, images)
            if copy is not None:
                network = copy
                images = images.contiguous(memory_format=torch.channels_last)
        with _own_draws(predictor, images, generator):
            record = Trace() if trace else None
            target = Target(options, predictor, network, how, images, labels, generator, record, last_label)
            _refuse_few_classes(target)
            yield target


def _refuse_few_classes(target: Target) -> None:
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

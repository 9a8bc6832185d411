"""The model as an attack sees it: logits and input gradients of the inference rule, counted, and nothing touched.

B batch, C channels, H height, W width, K classes, J losses.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_nas.attacks.best_iterate import BestIterate, misclassified
from robust_nas.attacks.checks import HESSIAN_PASSES, AttackOptions, check_logits
from robust_nas.attacks.losses import Loss, margin
from robust_nas.attacks.norms import finite
from robust_nas.attacks.predictor import Predictor, averaged, merged
from robust_nas.attacks.query_log import QueryLog
from robust_nas.errors import AttackError

_ON_FORWARD: ContextVar[Callable[[int], None] | None] = ContextVar("on_forward", default=None)


@contextmanager
def forwards_reported(report: Callable[[int], None]) -> Iterator[None]:
    """Call `report` with the number of images of every forward pass that an attack makes inside."""
    token = _ON_FORWARD.set(report)
    try:
        yield
    finally:
        _ON_FORWARD.reset(token)


def report_forwards(images: int) -> None:
    """Report a forward pass of an attack to who asked for it."""
    report = _ON_FORWARD.get()
    if report is not None:
        report(images)


@contextmanager
def attack_mode(model: nn.Module, bn: Literal["eval", "batch"] = "eval") -> Iterator[nn.Module]:
    """The model in eval mode with frozen parameters; on leaving, everything is as it was.

    With `bn="batch"` the BatchNorm modules alone normalise by the statistics of the batch, and their buffers
    (`num_batches_tracked` included) stay untouched. Modes are set on every submodule rather than by
    `model.eval()`, so that a model of mixed modes comes back mixed. Frozen parameters spare the weight
    gradients and `.grad`.
    """
    # A frozen ScriptModule has no mode.
    modules = [module for module in model.modules() if hasattr(module, "training")]
    modes = [module.training for module in modules]
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    parameters = list(model.parameters())
    required = [parameter.requires_grad for parameter in parameters]
    try:
        for module in modules:
            module.training = False
        if bn == "batch":
            for norm in norms:
                norm.training = True
                norm.track_running_stats = False
        for parameter in parameters:
            parameter.requires_grad = False
        yield model
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for norm, track in zip(norms, tracked, strict=True):
            norm.track_running_stats = track
        for parameter, require in zip(parameters, required, strict=True):
            parameter.requires_grad = require


def candidate_autocast(
    options: AttackOptions, images: Tensor
) -> contextlib.AbstractContextManager[torch.autocast | None]:
    """Return the precision of candidates: bf16 where the options say so, else what the caller's autocast says.

    What second derivatives are taken of is never in low precision.
    """
    if options.twice_differentiated:
        return torch.autocast(images.device.type, enabled=False)
    if options.precision == "bf16":
        return torch.autocast(images.device.type, torch.bfloat16)
    return contextlib.nullcontext()


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


class AttackedModel:
    """A model under attack. `images` and `labels` are clones; `generator` is the one source of the attack's draws."""

    def __init__(
        self,
        options: AttackOptions,
        predictor: Predictor,
        network: nn.Module,
        compiled: Callable[[Tensor], Tensor] | None,
        model_form: str,
        images: Tensor,
        labels: Tensor,
        generator: Generator,
        trace: Trace | None,
        last_label: int,
    ) -> None:
        self.options, self.predictor, self.network, self.model_form = options, predictor, network, model_form
        self.differentiated = compiled or network  # by `gradient`
        self.images, self.labels, self.generator, self.trace = images, labels, generator, trace
        self.passes = max(options.eot, 1)
        # Whether candidates are made from logits of a lower precision than a verdict.
        bf16 = options.precision == "bf16" or torch.is_autocast_enabled(images.device.type)
        self.low_precision = bf16 and not options.twice_differentiated
        self.last_label = last_label
        self.forwards = self.backwards = 0
        self.queries: QueryLog | None = None  # of attacks that count them
        self.flags: list[str] = []  # of the result (`AttackResult.flags`)
        self.rejects = False  # whether its logits have one more, the last, for a rejection (`with_rejection`)

    def with_rejection(self) -> AttackedModel:
        """Return the same model whose logits keep the one that means "rejected", with a count of its own passes."""
        found = copy.copy(self)
        found.predictor = Predictor(self.predictor.module, samples=self.predictor.samples)
        found.rejects = self.predictor.abstains
        found.forwards = found.backwards = 0
        return found

    def query_log(self) -> QueryLog:
        """Return the log of the queries of each image, which an attack without gradients keeps."""
        if self.queries is None:
            self.queries = QueryLog(self.labels, self.passes, traced=self.trace is not None)
        return self.queries

    def _logits(
        self, x: Tensor, labels: Tensor, candidates: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return logits of candidates by that form of the model; without one, of a verdict, never in low precision."""
        network = candidates or self.predictor.module
        verdict = torch.autocast(x.device.type, enabled=False)
        with candidate_autocast(self.options, x) if candidates else verdict:
            logits = check_logits(averaged(network, x, self.passes), x, self.last_label)
        self.forwards += len(x) * self.passes
        report_forwards(len(x) * self.passes)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return merged(logits, labels) if self.predictor.abstains else logits

    def logits(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits `[B, K]` of the model itself, at least float32, without a gradient.

        `labels` are those of `x` where it is not the whole batch.
        """
        with torch.no_grad():
            return self._logits(x, self.labels if labels is None else labels)

    def candidate_logits(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the same from the folded copy, where there is one, in the precision in which candidates are made."""
        with torch.no_grad():
            return self._logits(x, self.labels if labels is None else labels, self.network)

    def verified_logits(
        self, x: Tensor, logits: Tensor, labels: Tensor, among: Tensor | None = None
    ) -> Tensor:
        """Return logits `[B, K]` of candidates, by the model itself in float32 where they say "misclassified".

        An attack that stops at its first success asks for this: next to the boundary, the rounding of the copy decides.
        `among` `[B]` are the examples whose verdict matters; None: all.
        """
        if not self.low_precision and self.network is self.predictor.module:
            return logits
        doubtful = misclassified(logits, labels)
        rows = (doubtful if among is None else doubtful & among).nonzero().squeeze(1)
        if len(rows) == 0:
            return logits
        return logits.index_put((rows,), self.logits(x[rows], labels[rows]).to(logits.dtype))

    def without_overflow(
        self, x: Tensor, logits: Tensor, values: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor]:
        """Return logits `[B, K]` and losses `[B]` of candidates, by the model itself where a low precision overflowed.

        Logits that are not finite count as misclassified, which only those of float32 decide.
        """
        if not self.low_precision:
            return logits, values
        own = self.verified_logits(x, logits, self.labels, among=~logits.isfinite().all(1))
        return (logits, values) if own is logits else (own, loss(own))

    def no_worse(self, x: Tensor, clean: Tensor) -> Tensor:
        """Return per example the better of `x` and the image, whose logits are `clean`, where precision was low."""
        if not self.low_precision:
            return x
        best = BestIterate(self.images, self.labels)
        best.update(self.images, clean, margin(clean, self.labels))
        logits = self.logits(x)
        best.update(x, logits, margin(logits, self.labels))
        return best.images

    def gradient(self, x: Tensor, loss: Loss, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[B, K]`, loss `[B]` and the gradient of its sum for `x`; zero where the model gives no finite one."""
        logits, values, (gradient,) = self._gradients(
            self.differentiated, x, lambda logits: loss(logits).unsqueeze(1), labels
        )
        return logits, values[:, 0], gradient

    def gradients(
        self, x: Tensor, losses: Loss, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits `[B, K]`, several losses `[B, J]`, and for each the gradient of its sum: one pass forward, J back.

        Not of the compiled copy, whose backward pass may write over what the next one needs.
        """
        return self._gradients(self.network, x, losses, labels)

    def _gradients(
        self, network: Callable[[Tensor], Tensor], x: Tensor, losses: Loss, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        x = x.detach().requires_grad_()
        logits = self._logits(x, self.labels if labels is None else labels, network)
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
            gradients.append(torch.zeros_like(x) if gradient is None else finite(gradient))
        return logits.detach(), values.detach(), gradients

    def curvature(self, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Logits `[B, K]`, loss `[B]`, the gradient of its sum for `x`, and its product with the Hessian as a function.

        The Hessian is that of each example by itself, with batch norm in eval mode. Raises `AttackError` where the
        model cannot be differentiated twice.
        """
        x = x.detach().requires_grad_()
        logits = self._logits(x, self.labels, self.network)
        values = loss(logits)
        gradient: Tensor | None = None
        if values.requires_grad:
            gradient = self._derivative(values.sum(), x, None, create_graph=True)
            self.backwards += len(x) * self.passes

        def product(v: Tensor) -> Tensor:
            if gradient is None or not gradient.requires_grad:  # linear, or blind
                return torch.zeros_like(x)
            self.backwards += HESSIAN_PASSES * len(x) * self.passes
            v = torch.empty_like(x, requires_grad=False).copy_(v)  # in its memory format
            found = self._derivative(gradient, x, v, create_graph=False)
            return torch.zeros_like(x) if found is None else finite(found)

        own = torch.zeros_like(x) if gradient is None else finite(gradient.detach())
        return logits.detach(), values.detach(), own, product

    def _derivative(
        self, of: Tensor, x: Tensor, along: Tensor | None, *, create_graph: bool
    ) -> Tensor | None:
        try:
            with torch.autocast(x.device.type, enabled=False):
                (found,) = torch.autograd.grad(
                    of, x, along, allow_unused=True, retain_graph=True, create_graph=create_graph
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of torch, or of a backward pass that refuses
            reason = (str(error).splitlines() or [""])[0][:200]
            raise AttackError(
                f"{self.options.label}: the model cannot be differentiated twice ({reason}); "
                "choose an attack of first order, such as pgd"
            ) from error
        return found

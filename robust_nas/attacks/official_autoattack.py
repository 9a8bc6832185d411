"""Run the package `pyautoattack` without its side effects.

The package reseeds torch's global generators, ends any running trace (`sys.settrace(None)`), counts gradient
calls in a global that is never reset, reports its doubts as log lines, and fills `.grad` of the parameters
(FAB). Here all of that is kept in or put back, and the log's warnings come back as `flags`.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.attack import Attack
from robust_nas.attacks.attacked_model import attack_mode, report_forwards
from robust_nas.attacks.checks import (
    TOLERANCE,
    check_inputs,
    check_logits,
    check_perturbation,
    own_generator,
    perturbation,
)
from robust_nas.attacks.engine import AttackResult, seeded_globally
from robust_nas.attacks.norms import finite
from robust_nas.attacks.predictor import Predictor
from robust_nas.errors import AttackError


def run_official(
    options: Attack,
    names: Sequence[str],
    version: str,
    targets: tuple[int, int],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None,
) -> AttackResult:
    """Return the package's adversarial images and warnings; every attack gets what those before it left unbroken.

    `options` holds norm, eps and what is refused, `targets` the most target classes of APGD-T and FAB-T. The package
    averages passes of its own, so it gets the module of a predictor rather than its rule. The model, all global
    generators, the trace function and the package's logger are left as they were.
    """
    predictor = Predictor.of(model)
    flags = _Flags()
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        attack_mode(predictor),
        _global_state_kept(flags),
        torch.autocast(images.device.type, enabled=False),
    ):
        # Contiguous, because the package flattens its tensors with `view`.
        x = images.detach().clone(memory_format=torch.contiguous_format)
        y = labels.clone()
        if x.dtype != torch.float32:
            raise AttackError(f"images are {x.dtype}; AutoAttack works in float32")
        last_label = check_inputs(x, y)
        seed = _seed_from(own_generator(generator, x))
        with seeded_globally(seed, x.device):
            with torch.no_grad():
                logits = check_logits(predictor.module(x[:1].clone()), x[:1], last_label)
            classes = logits.shape[1]
            options.refuse_undefined(classes, tuple(x.shape[1:]), predictor.abstains)
            counted = _Logits(predictor.module, x, options)
            official = _official(options, version, counted, x.device, seed)
            official.attacks_to_run = list(names)
            official.apgd_targeted.n_target_classes, official.fab.n_target_classes = (
                min(most, classes - 1) for most in targets
            )
            adversarial, _ = official.run_standard_evaluation(x, y, batch_size=len(x))
            adversarial = torch.where(counted.met.view(-1, 1, 1, 1), counted.not_finite, adversarial)
        check_perturbation(adversarial, x, options.norm, options.radius, options.label)
    return AttackResult(
        images=torch.empty_like(images, requires_grad=False).copy_(adversarial).detach(),
        model_form="as it is: by its authors' package",
        forwards=counted.forwards,
        backwards=counted.backwards,
        flags=tuple(dict.fromkeys(flags.messages)),
    )


def _seed_from(generator: Generator) -> int:
    """Return a seed for the package: that of a fresh generator, else a draw. The generator moves on in either case."""
    fresh = Generator(generator.device).manual_seed(generator.initial_seed())
    used = not torch.equal(fresh.get_state(), generator.get_state())
    drawn = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return drawn if used else generator.initial_seed() % 2**31


class _Logits(nn.Module):
    """The model's logits, contiguous: the package flattens with `view` and writes into what it gets. Counts passes.

    The model gets a clone, because it may change its input in place. The package drops iterates whose logits are not
    finite, and a gradient with a NaN stops it: it gets logits of 0 for those, and 0 for an entry that is not finite.
    The first such iterate in the ball of an image is kept: it is misclassified.
    """

    def __init__(self, model: nn.Module, images: Tensor, options: Attack) -> None:
        super().__init__()
        self.model, self.images, self.options = model, images, options
        self.forwards = self.backwards = 0
        self.not_finite = images.clone()  # [N, C, H, W]
        self.met = torch.zeros(len(images), dtype=torch.bool, device=images.device)  # [N]

    def forward(self, x: Tensor) -> Tensor:
        differentiated = x.requires_grad and torch.is_grad_enabled()
        self.forwards += len(x)
        report_forwards(len(x))
        self.backwards += len(x) * differentiated
        given = x.clone()
        if differentiated:
            given.register_hook(finite)  # type: ignore[no-untyped-call]
        logits: Tensor = self.model(given)
        if differentiated and not logits.requires_grad:
            # The package raises at a model that detaches; with a gradient of zero its other attacks go on.
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        sound = logits.isfinite().all(1)
        if not sound.all():
            self._keep(x.detach()[~sound])
            logits = torch.where(sound.unsqueeze(1), logits, 0.0)
        return logits.contiguous()

    def _keep(self, iterates: Tensor) -> None:
        """Note iterates without finite logits for the images in whose ball they are; any such image is broken by it."""
        limit = self.options.radius + TOLERANCE * max(1.0, self.options.radius)
        for iterate in iterates:  # one after the other: all against all would not fit the memory
            if self.met.all():
                return
            if not bool((iterate >= 0).all() & (iterate <= 1).all()):  # NaN fails it too
                continue
            size = perturbation(iterate.expand_as(self.images), self.images, self.options.norm)
            new = (size <= limit) & ~self.met
            self.not_finite[new], self.met[new] = iterate, True


def _official(options: Attack, version: str, model: nn.Module, device: torch.device, seed: int) -> Any:
    # The package's own name, spelled out here, because it clashes with the option value's.
    from pyautoattack import AutoAttack as OfficialAutoAttack

    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[options.norm]
    return OfficialAutoAttack(model, eps=options.eps, norm=norm, device=device, seed=seed, version=version)


class _Flags(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().removesuffix(" See flags_doc.md for details."))


@contextmanager
def _global_state_kept(flags: _Flags) -> Iterator[None]:
    """Put back what the package changes for the whole process, and lead its log into `flags`."""
    from pyautoattack import checks

    logger = logging.getLogger("auto-attack")
    logged = (logger.level, logger.propagate, logger.handlers[:])
    counts, trace = dict(checks.funcs), sys.gettrace()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.handlers[:] = [flags]
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # else one dynamic model marks all that follow
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        logger.setLevel(logged[0])
        logger.propagate = logged[1]
        logger.handlers[:] = logged[2]
        checks.funcs.update(counts)
        sys.settrace(trace)
        random.setstate(python_state)
        np.random.set_state(numpy_state)

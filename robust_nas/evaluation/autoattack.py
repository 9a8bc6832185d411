"""AutoAttack (Croce and Hein, 2020) through the authors' package `pyautoattack`, without its side effects.

The package reseeds torch's global generators, ends any running trace (`sys.settrace(None)`), counts gradient
calls in a global that is never reset, reports its doubts as log lines, and fills `.grad` of the parameters
(FAB). Here all of that is kept in or put back, and the log's warnings come back as `flags`.

A list of attacks uses the settings of the standard suite: 100 iterations, one restart, 9 target classes,
5,000 queries. With fewer than ten classes the targeted attacks go through all the other classes.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.attacks.checks import check_inputs, check_logits
from robust_nas.errors import AttackError
from robust_nas.evaluation.measure import check_perturbation
from robust_nas.evaluation.options import AutoAttack

LEAST_CLASSES = {"apgd-t": 4, "apgd-dlr": 3}  # their losses rank so many logits; the others need two
TARGETS = 9
EOT = 20  # forward passes per gradient of the version for randomised models


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of AutoAttack gives back."""

    images: Tensor  # [B, C, H, W] float32; the image itself where no attack succeeded
    flags: tuple[str, ...]  # the package's own warnings about the model, such as a randomised forward pass
    forwards: int  # forward passes of one image
    backwards: int  # those of them that were differentiated


def run_autoattack(
    options: AutoAttack, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, batch_size: int = 256
) -> Outcome:
    """Adversarial images and the package's warnings; every attack gets what those before it left unbroken.

    The model, all global generators, the trace function and the package's logger are left as they were.
    Raises `AttackError` for inputs that cannot be attacked, too few classes, or a result outside the ball or
    box.
    """
    flags = _Flags()
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        attack_mode(model),
        _global_state_kept(flags),
        torch.autocast(images.device.type, enabled=False),
    ):
        # Contiguous, because the package flattens its tensors with `view`.
        x = images.detach().clone(memory_format=torch.contiguous_format)
        y = labels.clone()
        if x.dtype != torch.float32:
            raise AttackError(f"images are {x.dtype}; AutoAttack works in float32")
        last_label = check_inputs(x, y)
        with torch.no_grad():
            classes = check_logits(model(x[:1].clone()), x[:1], last_label).shape[1]
        check_suite(options, classes, *x.shape[2:])
        counted = _Logits(model)
        official = _official(options, counted, classes, x.device, seed)
        adversarial, _ = official.run_standard_evaluation(x, y, batch_size=batch_size)
        check_perturbation(adversarial, x, options.norm, options.eps, options.label)
    result = torch.empty_like(images, requires_grad=False).copy_(adversarial)
    return Outcome(
        images=result.detach(),
        flags=tuple(dict.fromkeys(flags.messages)),
        forwards=counted.forwards,
        backwards=counted.backwards,
    )


def check_suite(options: AutoAttack, classes: int, height: int, width: int) -> None:
    """Raises `AttackError` where an attack of the list is not defined for such a model or such images."""
    for name in options.names:
        least = LEAST_CLASSES.get(name, 2)
        if classes < least:
            raise AttackError(
                f"{name} needs at least {least} classes, the model has {classes}; list other attacks"
            )
        # In L2, Square starts with a window of odd side over about four fifths of the area; it must fit.
        side = max(round((0.8 * height * width) ** 0.5), 3)
        if name == "square" and options.norm == "l2" and side + (side + 1) % 2 > min(height, width):
            raise AttackError(
                f"square in l2 cannot tile images of {height}x{width} pixels; list other attacks"
            )


def settings(options: AutoAttack, classes: int) -> dict[str, Any]:
    """Every hyper-parameter of the list that the option value does not show, for reports."""
    every: dict[str, dict[str, Any]] = {
        "apgd-ce": {"iterations": 100, "restarts": 1, "rho": 0.75},
        "apgd-dlr": {"iterations": 100, "restarts": 1, "rho": 0.75},
        "apgd-t": {"iterations": 100, "restarts": 1, "rho": 0.75, "targets": min(TARGETS, classes - 1)},
        "fab": {"iterations": 100, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
        "fab-t": {
            "iterations": 100, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9,
            "targets": min(TARGETS, classes - 1),
        },
        "square": {"queries": 5000, "restarts": 1, "p_init": 0.8},
    }  # fmt: skip
    rand = {"eot": EOT} if options.version == "rand" else {}
    return {
        "pyautoattack": version("pyautoattack"),
        **rand,
        **{name: every[name] for name in options.names},
    }


def seed_from(generator: Generator | None) -> int:
    """A seed for the package, drawn from the generator (0 without one)."""
    if generator is None:
        return 0
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))


class _Logits(nn.Module):
    """The model's logits, contiguous: the package flattens with `view` and writes into what it gets. Counts passes.

    The model gets a clone, because it may change its input in place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.backwards += len(x) * (x.requires_grad and torch.is_grad_enabled())
        logits: Tensor = self.model(x.clone())
        return logits.contiguous()


def _official(options: AutoAttack, model: nn.Module, classes: int, device: torch.device, seed: int) -> Any:
    # The package's own name, spelled out here, because it clashes with the option value's.
    from pyautoattack import AutoAttack as OfficialAutoAttack

    norm = {"linf": "Linf", "l2": "L2"}[options.norm]
    official = OfficialAutoAttack(
        model, eps=options.eps, norm=norm, device=device, seed=seed, version=options.version
    )
    official.attacks_to_run = list(options.names)
    official.apgd_targeted.n_target_classes = min(TARGETS, classes - 1)
    official.fab.n_target_classes = min(TARGETS, classes - 1)
    return official


class _Flags(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().removesuffix(" See flags_doc.md for details."))


@contextmanager
def _global_state_kept(flags: _Flags) -> Iterator[None]:
    """Puts back what the package changes for the whole process, and leads its log into `flags`."""
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

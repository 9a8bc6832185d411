"""What a gradient attack ascends, per example; each is larger the more wrong the model is.

    ce            -log p_y
    margin        max_{j != y} z_j - z_y
    dlr           -(z_y - max_{j != y} z_j) / (z_pi1 - z_pi3)            pi: logits in falling order
    ce-targeted   log p_t
    dlr-targeted  -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2)
    kl            KL(p(image) || p(x))

Sources: margin, Carlini and Wagner 2017; DLR, Croce and Hein 2020 (invariant to shift and scale of the logits);
KL, TRADES, Zhang et al. 2019. B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 1e-12  # in the denominators, as in the official code

LEAST_CLASSES = {"dlr": 3, "dlr-targeted": 4}  # they rank this number of logits; every other loss needs two
TARGETED = frozenset({"ce-targeted", "dlr-targeted"})  # they lead to a class instead of away from the label
SATURATING = frozenset(
    {"ce", "ce-targeted", "kl"}
)  # of the softmax: exact 0 or 1 in float32 from about 17 nats on

Loss = Callable[["Tensor"], "Tensor"]  # logits [B, K] to the loss of each example [B]


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, `[B]`, nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class, `[B]`."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the best other class is ahead of the label, `[B]`; above 0 where misclassified."""
    return best_other(logits, labels) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, `[B]`; needs three classes."""
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third + SMALL)


def ce_targeted(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of the target, `[B]`, nats."""
    return -ce(logits, targets)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio, `[B]`; needs four classes."""
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    own, target = (logits.gather(1, c.unsqueeze(1)).squeeze(1) for c in (labels, targets))
    return (target - own) / (first - (third + fourth) / 2 + SMALL)


def kl(logits: Tensor, clean: Tensor) -> Tensor:
    """The divergence from the clean prediction, given by its logits `[B, K]`; `[B]`, nats."""
    log_p, log_q = clean.log_softmax(1), logits.log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def likeliest_wrong(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` likeliest classes but the label, likeliest first, `[count, B]`."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).topk(count, dim=1).indices.t()


def bound(name: str, labels: Tensor, *, clean: Tensor | None, targets: Tensor | None) -> Loss:
    """The loss of that name for these labels; `clean` logits for the KL, `targets` for a targeted one."""
    if name == "kl" and clean is not None:
        return lambda logits: kl(logits, clean)
    if name == "ce-targeted" and targets is not None:
        return lambda logits: ce_targeted(logits, targets)
    if name == "dlr-targeted" and targets is not None:
        return lambda logits: dlr_targeted(logits, labels, targets)
    plain = {"ce": ce, "margin": margin, "dlr": dlr}[name]
    return lambda logits: plain(logits, labels)


def refuse_targets_without_loss(targets: int | None, loss: str) -> None:
    """Raise `ValueError` where `targets` is given for a loss that has none."""
    if targets is not None and loss not in TARGETED:
        raise ValueError(f"targets is {targets}, but loss {loss!r} has none; name a targeted loss")

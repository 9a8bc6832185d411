"""A guard against catastrophic overfitting: single-step training that suddenly loses all robustness.

    at the end of every epoch, on fixed images of validation, at the eps of the inner attack:
    r = accuracy under PGD, s = accuracy under FGSM
    overfitted = r < max r so far - drop   or   (s - r > gap and r < max r so far)

An overfitted epoch is undone: weights, batch statistics, optimiser and moving average are those of the last sound
epoch (at first, those of the start). The attack is strengthened to a PGD of twice the gradient steps, at most
`most_steps`, for the rest of the training, which goes on with the next epoch. The record in `metrics.jsonl` says so.

The official code of Fast-AT (Wong et al., 2020) watches PGD-5 on training images, stops at a drop of 0.2 and keeps the
weights before it. The second sign, images of validation, and what follows are our choice. The second sign counts while
the attack can be strengthened: at large eps FGSM and PGD stay apart, and undoing every epoch would end the training.
Hooks that take the weights at the end of an epoch, such as `swa`, have to be listed after this one. What it measures is
not counted as passes, as validation is not; nor is what a strengthened attack takes more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.attacks import FGSM, PGD, Attack, BoundedAttack
from robust_nas.config import Count, Fraction01
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, Recipe, TrainingHook
from robust_nas.training.loss import Loss
from robust_nas.training.modes import in_eval_mode

if TYPE_CHECKING:
    from torch import Tensor

START = -1  # the "epoch" of the weights at the start


class OverfittingGuard(HookOptions):
    """Undoes epochs of catastrophic overfitting, and strengthens the attack (after Wong et al., 2020).

    `drop` and `gap` are accuracies, on at most `images` images of validation; PGD takes `steps` steps.
    """

    needs_end: ClassVar[bool] = False

    name: Literal["overfitting-guard"] = "overfitting-guard"
    images: Count = 256  # validation images at most
    steps: Count = 10  # PGD steps of the check
    drop: Fraction01 = 0.2  # fall of the accuracy under PGD that counts as overfitting
    gap: Fraction01 = 0.15  # accuracy under the training attack minus PGD's that counts as overfitting
    most_steps: Count = 10  # steps to which the training attack may grow

    def refuse(self, recipe: Recipe) -> None:
        """Raise `ValueError` for a loss without an inner attack of a positive eps."""
        attack = recipe.loss.inner_attack
        if attack is None or not attack.eps:
            what = "none" if attack is None else f"one of eps {attack.eps}"
            raise ValueError(
                f"hook 'overfitting-guard' watches and strengthens the inner attack; loss {recipe.loss.label!r} has "
                f"{what}"
            )
        hooks = list(recipe.hooks)
        early = [hook.label for hook in hooks[: hooks.index(self)] if hook.reads_weights]
        if early:
            raise ValueError(
                f"hook 'overfitting-guard' undoes epochs, but {', '.join(early)} before it in the list has already "
                "taken their weights; list overfitting-guard first"
            )

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return Guard(self, training)


class Guard(TrainingHook):
    """The hook in its running form."""

    def __init__(self, options: OverfittingGuard, training: TrainingContext) -> None:
        from robust_nas.training.validation import validation_images

        attack = training.loss.inner_attack
        if attack is None or attack.eps is None or training.validation is None:
            raise ConfigError(
                "training.hooks: overfitting-guard needs an inner attack and images of validation"
            )
        self.options, self.training = options, training
        self.images = validation_images(training.validation, options.images, 0)
        same = {"eps": attack.eps, "norm": attack.norm}
        self.measures = {"pgd": PGD(steps=options.steps, **same), "fgsm": FGSM(**same)}
        self.times = 0  # how often the attack was strengthened
        self.best = 0.0
        self.good = self._snapshot(START)

    def loss(self, loss: Loss) -> Loss:
        """Return the loss with the strengthened attack; itself where nothing was overfitted yet."""
        attack = loss.inner_attack
        if self.times == 0 or attack is None:
            return loss
        return loss.with_attack(strengthened(attack, self.times, self.options.most_steps))

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Measure, and keep or undo the epoch. Return the accuracies, and what was done about them."""
        found = {name: self._accuracy(attack, epoch) for name, attack in self.measures.items()}
        record: dict[str, Any] = {f"guard_{name}": accuracy for name, accuracy in found.items()}
        fell = found["pgd"] < self.best - self.options.drop
        apart = (
            found["fgsm"] - found["pgd"] > self.options.gap
            and found["pgd"] < self.best
            and self._can_strengthen()
        )
        if not (fell or apart):
            self.best = max(self.best, found["pgd"])
            self.good = self._snapshot(epoch)
            return record
        self.times += 1
        self._roll_back()
        attack = self.loss(self.training.loss).inner_attack
        record["rolled_back_to"] = self.good["epoch"]
        record["overfitting"] = "robust accuracy fell" if fell else "FGSM and PGD differ"
        record["strengthened_to"] = attack.label if attack is not None else None
        return record

    def _can_strengthen(self) -> bool:
        attack, most = self.training.loss.inner_attack, self.options.most_steps
        return attack is not None and self.times < most and gradient_steps(attack) * 2**self.times < most

    def _accuracy(self, attack: BoundedAttack, epoch: int) -> float:
        from robust_nas.training.validation import validate

        where = f"training, epoch {epoch + 1}, overfitting-guard"
        network, ranks = self.training.network, self.training.ranks
        with in_eval_mode(network):
            return validate(network, self.images, attack, seed=0, where=where, ranks=ranks)[1]

    def _snapshot(self, epoch: int) -> dict[str, Any]:
        """Return copies of all that a step moves, as they are at the end of an epoch."""
        training = self.training
        average, optimiser = training.average, training.optimiser
        return {
            "epoch": epoch,
            "network": _each(training.network.state_dict(), _copy),
            "average": None if average is None else _each(average.state_dict(), _copy),
            "optimiser": None if optimiser is None else _each(optimiser.state_dict(), _copy),
        }

    def _roll_back(self) -> None:
        """Put the last sound epoch back."""
        training = self.training
        training.network.load_state_dict(self.good["network"])
        if training.average is not None:
            training.average.load_state_dict(self.good["average"])
        if training.optimiser is not None:
            training.optimiser.load_state_dict(
                _each(self.good["optimiser"], _copy)
            )  # it keeps what it is given

    def state(self) -> dict[str, Any]:
        """Return the last sound epoch, its best accuracy so far, and how often the attack was strengthened."""
        return {"times": self.times, "best": self.best, "good": self.good}

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back, on the device of the training."""
        device = self.training.generator.device
        good = state["good"]
        shapes = [{name: t.shape for name, t in tree["network"].items()} for tree in (good, self.good)]
        if shapes[0] != shapes[1]:
            raise ValueError("the last sound epoch of the overfitting guard is of another network")
        self.times, self.best = int(state["times"]), float(state["best"])
        self.good = _each(good, lambda tensor: tensor.to(device))


def gradient_steps(attack: Attack) -> int:
    """Return the gradient steps that an attack takes, or takes the time of."""
    return max(1, attack.crafting_passes // 2)


def strengthened(attack: Attack, times: int, most: int) -> Attack:
    """Return PGD of 2^times as many gradient steps as an attack, at most `most`, for the same loss and ball.

    An attack that has as many already is returned as it is: it is never weakened.
    """
    if gradient_steps(attack) >= most:
        return attack
    return PGD(
        eps=attack.eps or 0.0,
        norm=attack.norm,
        steps=min(most, gradient_steps(attack) * 2**times),
        loss="kl" if attack.objective == "kl" else "ce",
        keep="last",
        bn=attack.bn,
        precision=attack.precision,
        compile=attack.compile,
        eot=attack.eot,
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _each(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tree of dicts and lists with every tensor changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _each(value, change) for key, value in tree.items()}
    return [_each(value, change) for value in tree] if isinstance(tree, list) else tree

"""A loss, a hook, a step and a schedule as a user writes them, each with what it needs to be costed and resumed."""

import torch

from robust_nas.config import Count, Fraction01
from robust_nas.training import (
    HookOptions,
    Loss,
    LossValue,
    Measured,
    Schedule,
    StepOptions,
    TrainingHook,
    TrainingStep,
    cross_entropy,
)


class Mixup(Loss):
    """Cross-entropy on convex combinations of images and of labels (Zhang et al., 2018)."""

    share: Fraction01 = 0.3

    @property
    def passes(self):
        return 3

    def __call__(self, model, images, labels, generator):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        logits = model((1 - self.share) * images + self.share * images[order])
        mixed = [cross_entropy(logits, target) for target in (labels, labels[order])]
        return LossValue((1 - self.share) * mixed[0] + self.share * mixed[1], logits)


class Anchor(HookOptions):
    """Pulls the weights to a slow copy of themselves, which is what is kept."""

    pull: Fraction01 = 0.1

    def start(self, training):
        return Anchored(self.pull, list(training.network.parameters()))


class Anchored(TrainingHook):
    def __init__(self, pull, weights):
        self.pull, self.weights = pull, weights
        self.slow = [weight.detach().clone() for weight in weights]

    def penalty(self):
        return (
            self.pull / 2 * sum((w - s).square().sum() for w, s in zip(self.weights, self.slow, strict=True))
        )

    def end_epoch(self, epoch):
        self.slow = [s.lerp(w.detach(), 0.5) for w, s in zip(self.weights, self.slow, strict=True)]
        return {"anchored": epoch}

    def state(self):
        return {"slow": self.slow}

    def restore(self, state):
        self.slow = [slow.to(weight) for slow, weight in zip(state["slow"], self.weights, strict=True)]


class FreeAT(StepOptions):
    """A batch is used m times; one backward pass moves weights and perturbation (Shafahi et al., 2019)."""

    replays: Count = 2
    eps: Fraction01 = 0.1

    def start(self, training, hooks):
        return FreeStep(self, training, hooks)

    def passes(self, loss):
        return self.replays * loss.passes


class FreeStep(TrainingStep):
    def __init__(self, options, training, hooks):
        super().__init__(training, hooks)
        self.options, self.delta = options, None

    @property
    def replays(self):
        return self.options.replays

    def gradients(self, batch):
        eps = self.options.eps
        if self.delta is None:
            self.delta = torch.zeros_like(batch.images)
        delta = self.delta.requires_grad_()
        value = self.training.value((batch.images + delta).clamp(0, 1), batch.labels)
        loss = self.backward(value.loss, batch)
        self.delta = (self.delta.detach() + eps * delta.grad.sign()).clamp(-eps, eps)
        return Measured(loss, (value.logits.argmax(1) == batch.labels).sum())

    def state(self):
        return {"delta": None if self.delta is None else self.delta.detach()}

    def restore(self, state):
        self.delta = state["delta"]


class Cyclic(Schedule):
    """A triangle from 0 over 1 to 0."""

    def factor_at(self, epoch, epochs):
        return 1 - abs(2 * epoch / epochs - 1)

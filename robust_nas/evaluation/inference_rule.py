"""The rule by which a model's outputs become an answer, declared by whoever deploys the model."""

from __future__ import annotations

from robust_nas.config import Count, Options


class InferenceRule(Options):
    """The rule by which the model's outputs become an answer.

    `samples` declares a random model: its answer is the mean softmax over `samples` forward passes. It is attacked with
    `eot` passes per gradient and judged on `draws` fresh answers, by their majority. With `abstains` the model's last
    logit means "rejected", and the attack wins with a wrong and accepted input alone.
    """

    # forward passes whose mean softmax is the answer of a random model; None: not random
    samples: Count | None = None
    eot: Count = 16  # forward passes a gradient when a random model is attacked
    draws: Count = 5  # fresh answers whose majority judges an attack
    abstains: bool = False  # whether the last logit means "rejected"

"""Randomised smoothing with a certified L2 radius (Cohen, Rosenfeld and Kolter, ICML 2019).

    g(x) = argmax_c P(f(x + e) = c),   e ~ N(0, sigma^2 I)         the smoothed classifier of the base classifier f
    R = sigma Phi^-1(p),               p <= P(f(x + e) = c)        g is c in the L2 ball of radius R, if p > 1/2

Certify: c has the most of `n0` draws; of `n` fresh draws k are of class c; p is the lower Clopper-Pearson bound of k of
n at confidence 1 - alpha; where p <= 1/2 it abstains. Predict: the class of the most of n draws, or none where the two
most frequent ones differ no more than a fair coin's sides would with probability alpha (two-sided binomial test). Each
image's answer is wrong with probability alpha at most. The noise is in units of pixels 0..1 and nothing is clipped, as
in the official code. Defaults are the paper's, but `n` (published: 100000), `samples` and `batch_size`, which are ours.

What attacks meet, and an evaluation judges, is another classifier: the mean softmax of f over `samples` draws, which
has a gradient and takes few passes. Cohen's g counts votes, and the certificate is of g alone.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import Count, Number, Positive
from robust_nas.defences.certificates import ABSTAINS, Certificates
from robust_nas.defences.defence import RandomDefence
from robust_nas.errors import ConfigError
from robust_nas.lazy import stats, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.defences.defended import Defended


class RandomizedSmoothing(RandomDefence):
    """Gaussian noise of standard deviation `sigma` on every image, and the certificate of the majority of its draws.

    `n0` and `n`: draws that choose and that certify a class, with `batch_size` of them in a forward pass. `samples`:
    draws of an answer in an evaluation.
    """

    certifies: ClassVar[bool] = True
    trained_with: ClassVar[str] = "the hook gaussian-noise with the same sigma"

    name: Literal["randomized-smoothing"] = "randomized-smoothing"
    sigma: Positive = 0.25  # standard deviation of the noise, in pixels 0..1
    n0: Count = 100  # draws that choose a class
    n: Count = 10_000  # draws that certify it
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.001  # probability of a wrong certificate, at most
    batch_size: Count = 256  # draws of a forward pass

    @model_validator(mode="after")
    def _can_certify(self) -> Self:
        if self.alpha ** (1 / self.n) <= 0.5:
            raise ValueError(
                f"n is {self.n}: at alpha {self.alpha:g} so few draws certify nothing, even where all agree; "
                "alpha^(1/n) above 1/2 is needed"
            )
        return self

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network behind the noise."""
        from robust_nas.defences.defended import BeforeNetwork

        class Smoothed(BeforeNetwork):
            def transformed(self, x: Tensor) -> Tensor:
                return x + sigma * torch.randn_like(x)

        sigma = self.sigma
        return Smoothed(network, self, values)

    def certify(self, defended: Defended, images: Tensor, generator: Generator) -> Certificates:
        """Return certified classes and radii of images `[B, C, H, W]`, which hold with probability 1 - alpha each.

        Draws are taken from `generator` one by one, image after image: n0, then n. So neither `batch_size` nor the
        batches that images come in decide which draws an image gets. Raises `ConfigError` in training mode.
        """
        classes, radii = [], []
        for image in images:
            chosen = int(self._votes(defended, image, self.n0, generator).argmax())
            votes = int(self._votes(defended, image, self.n, generator)[chosen])
            p = lower_bound(votes, self.n, self.alpha)
            radius = self.sigma * float(stats.norm.ppf(p)) if p > 0.5 else 0.0
            classes.append(chosen if radius > 0 else ABSTAINS)
            radii.append(radius)
        return Certificates(
            torch.tensor(classes, dtype=torch.int64), torch.tensor(radii, dtype=torch.float64), "l2"
        )

    def predict(self, defended: Defended, images: Tensor, generator: Generator) -> Tensor:
        """Return the answers `[B]` of the smoothed classifier by n draws, on the host; -1 where it abstains.

        An answer is not g's own with probability alpha at most. Draws as in `certify`.
        """
        found = []
        for image in images:
            votes = self._votes(defended, image, self.n, generator)
            (first, second), (top, _) = (pair.tolist() for pair in votes.topk(2))
            unsure = first + second == 0 or binomial_p(first, first + second) > self.alpha
            found.append(ABSTAINS if unsure else top)
        return torch.tensor(found, dtype=torch.int64)

    def _votes(self, defended: Defended, image: Tensor, draws: int, generator: Generator) -> Tensor:
        """Return how many of the draws are of each class `[K]`, on the host.

        A draw whose logits are not finite is of none: the bound stays one.
        """
        network = defended.module
        if any(module.training for module in network.modules()):
            raise ConfigError(
                f"defence {self.label}: the network is in training mode, in which the images of a batch decide each "
                "other's answers; call .eval() before"
            )
        votes = []
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            for start in range(0, draws, self.batch_size):
                noise = image.new_empty(min(self.batch_size, draws - start), *image.shape)
                for draw in noise:  # a call for each, so that their number decides nothing
                    draw.normal_(generator=generator)
                logits = network(image + self.sigma * noise)
                answers = logits.argmax(1)[logits.isfinite().all(1)]
                votes.append(torch.bincount(answers, minlength=logits.shape[1]).cpu())
        return torch.stack(votes).sum(0)


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """Return the lower Clopper-Pearson bound of a probability, one-sided at confidence 1 - alpha.

    It is the p of which so many successes or more have probability alpha.
    """
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(alpha, successes, trials - successes + 1))


def binomial_p(successes: int, trials: int) -> float:
    """Return the two-sided p-value of so many successes of a fair coin."""
    return float(stats.binomtest(successes, trials, 0.5).pvalue)

"""Adv-BNN: adversarial training of a Gaussian posterior over the weights (Liu, Li, Wu and Hsieh, ICLR 2019).

    L = CE(f(x'; w), y) + alpha/N KL(q || p),     w ~ q = N(mu, sigma^2),    p = N(0, prior_sigma^2)
    x' = argmax over the ball of E_w CE(f(x'; w), y)

w is drawn afresh for every gradient of the attack (`attack.eot` draws, whose mean softmax is attacked), and once for
the loss: one draw for the whole batch. N is the number of training images. The paper's text was not available; loss,
prior (0.08), alpha (1, no option there) and one draw a gradient are those of the released code. Its attack has 10 steps
of 0.007 without a random start; here it is any that is fit for training, by default PGD of 10 steps of eps / 4.

Batch norms: the attack sees running statistics, as in the released code, the loss those of the batch. The prior is the
KL: a recipe's `weight_decay` comes on top of it for mu, so that it belongs at 0; sigma has none.
Outside of a training, which knows its images, N is the size of the batch.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.config import NonNegative, Positive
from robust_nas.errors import ConfigError
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class AdvBNN(Loss):
    """Cross-entropy on adversarial images of a drawn network, and the divergence from a prior (Liu et al., 2019).

    `prior_sigma`: standard deviation of the prior of every weight. `alpha`: weight of the divergence.
    """

    fits_parts: ClassVar[bool] = True

    name: Literal["adv-bnn"] = "adv-bnn"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="pgd")] = Field(default={}, validate_default=True)
    prior_sigma: Positive = 0.08  # standard deviation of the prior of every weight
    alpha: NonNegative = 1.0  # weight of the divergence from the prior
    _images: int | None = PrivateAttr(default=None)  # N

    @property
    def passes(self) -> int:
        """Return 2K + 3 for an attack of K steps; the divergence is no pass."""
        return attack_passes(self.attack) + STEP_PASSES

    def refuse_architecture(self, architecture: Any, key: str = "training.loss") -> None:
        """Raise `ConfigError` for a network without a posterior over its weights."""
        if not architecture.has_posterior:
            raise _refusal(key, architecture.called)

    def refuse_network(self, network: nn.Module, key: str = "training.loss") -> None:
        """Raise `ConfigError` for the same."""
        super().refuse_network(network, key)
        if not hasattr(network, "drawing_from"):
            raise _refusal(key, type(network).__name__)

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook that says how many images there are."""
        return KnownImages(training)

    def of_images(self, count: int) -> AdvBNN:
        """Return the loss of a training on `count` images."""
        bound = self.model_copy()
        bound._images = count
        return bound

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the logits of the draw that was trained."""
        from robust_nas.attacks.predictor import Predictor

        self.refuse_network(model)
        posterior: Any = model
        # A folded copy would keep one draw. Not declared random, the network draws by `generator` in the attack too,
        # and no seed is read back from the device.
        attack = self.attack.model_copy(update={"fold": False})
        with posterior.drawing_from(generator):
            logits = model(attack.craft(Predictor(model), images, labels, generator))
        divergence = posterior.kl(self.prior_sigma) / (self._images or len(images))
        return LossValue(cross_entropy(logits, labels) + self.alpha * divergence, logits)


class KnownImages(TrainingHook):
    """Gives the loss the number of training images; it has no state."""

    def __init__(self, training: TrainingContext) -> None:
        if training.images is None:
            raise ConfigError("training.loss: adv-bnn weighs its prior by the number of images; got none")
        self.count = len(training.images)

    def loss(self, loss: Loss) -> Loss:
        """Return the loss that knows the number."""
        own: Any = loss
        return own.of_images(self.count)  # type: ignore[no-any-return]


def _refusal(key: str, network: Any) -> ConfigError:
    return ConfigError(
        f"{key}: adv-bnn trains a posterior over the weights; the network is {network}, which has none: "
        "set network.posterior to mean-field, or name an architecture such as mean-field.wrn-10-1"
    )

"""Training with Gaussian noise, for randomised smoothing (Cohen, Rosenfeld and Kolter, ICML 2019).

    L(f, x + e, y),   e ~ N(0, sigma^2 I)    one draw for every image of every batch, after augmentation, not clipped

The loss gets the noisy images in the place of the clean ones. A loss with an attack of its own would clip them to 0..1
and is refused: smoothed adversarial training (Salman et al., 2019) puts noise behind the attack. So are steps that move
the images, which clip them too, and losses that fit parts to images without noise. Validation, and with it the
kept epoch, is of the network without noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.config import NonNegative
from robust_nas.lazy import torch
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, Recipe, TrainingHook

if TYPE_CHECKING:
    from torch import Generator, Tensor


class GaussianNoise(HookOptions):
    """Gaussian noise of standard deviation `sigma`, in pixels 0..1, on every training image (Cohen et al., 2019)."""

    needs_end: ClassVar[bool] = False

    name: Literal["gaussian-noise"] = "gaussian-noise"
    sigma: NonNegative = 0.25  # standard deviation, in pixels 0..1

    def refuse(self, recipe: Recipe) -> None:
        """Raise `ValueError` for a loss or a step that changes the images itself."""
        loss = recipe.loss
        if loss.inner_attack is not None or loss.fits_parts:
            why = "attacks the images" if loss.inner_attack is not None else "fits parts to images without it"
            raise ValueError(
                f"hook 'gaussian-noise' adds noise to the images of a step, but loss {loss.label!r} {why}; "
                "it needs a loss of the images as they are, such as natural"
            )
        if recipe.moves_images:
            raise ValueError(
                "hook 'gaussian-noise' adds noise that is not clipped, but the step moves the images and clips them; "
                "allowed with it: step standard"
            )

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return Noise(self.sigma, training.generator)


class Noise(TrainingHook):
    """The hook in its running form; its draws are those of the training, and it has no state."""

    def __init__(self, sigma: float, generator: Generator) -> None:
        self.sigma, self.generator = sigma, generator

    def augmented(self, images: Tensor) -> Tensor:
        """Return the images with noise."""
        if self.sigma == 0:
            return images
        device = self.generator.device
        noise = torch.randn(images.shape, generator=self.generator, device=device, dtype=images.dtype)
        return images + self.sigma * noise.to(images.device)

"""The protocol of methods that learn a training set through kernel regression, and `DISTILLERS`, which knows them.

    L(X, y) = 1/2 mean || k(X', X) (k(X, X) + reg tr / n I)^-1 y - y' ||^2          (X', y'): a batch of real images

A new method is a subclass with `attacked`, in a file of its own, and a line in `DISTILLERS`. The loop is `loop.py`'s:
class-balanced batches of real images, a step of Adam on the support images X (and their labels y, where these are
learned), and a projection of the images to 0..1 after every step.

B batch, n support images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from robust_nas.attacks import PGD, ThreatModel
from robust_nas.config import Count, CountOrZero, NonNegative, Positive
from robust_nas.errors import ConfigError
from robust_nas.kernels import KERNELS, Kernel
from robust_nas.kernels.regression import solve
from robust_nas.kernels.relu_ntk import ReLUNTK
from robust_nas.registry import Method, Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.nets.kernel_regression import KernelRegressionNetwork

USUAL_SUPPORT = 100  # images, beyond which a step takes long: its cost grows with the square


class LearnedSet(NamedTuple):
    """Support images `[n, C, H, W]` in 0..1, their targets `[n, K]`, both float64, and the class of each `[n]`.

    The class is the one that an image started with; learned targets may have their largest value elsewhere.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor


class Distiller(Method):
    """Base of all methods. Defaults are those of the public code of KIP where the comment does not say otherwise."""

    chooses_by: ClassVar[Literal["clean", "robust"]] = "clean"  # accuracy on the validation split

    kernel: Annotated[Kernel, KERNELS.field()] = ReLUNTK()  # of the regression
    per_class: Count = 10  # support images of each class, which start as real images
    largest_support: Count = USUAL_SUPPORT  # images in all
    steps: CountOrZero = 300  # 0: the real images that a distillation starts from
    batch_size: Count = 500  # real images of a step, as many of each class (KIP: 5000)
    learning_rate: Positive = 4e-2  # of Adam, on the scale of the normalised images
    # ridge of kernel regression, relative to the mean of the kernel matrix's diagonal
    reg: NonNegative = 1e-6
    learn_labels: bool = False  # whether targets are learned too
    validate_every: Count = 20  # steps between validations; the start and the last step are always validated
    validation_images: Count | None = None  # validation images at most; None: all
    validation_steps: Count = 10  # PGD steps of a validation

    def attacked(
        self,
        network: KernelRegressionNetwork,
        images: Tensor,
        targets: Tensor,
        threat_model: ThreatModel,
        generator: Generator,
    ) -> Tensor:
        """Return what a step learns from instead of the images `[B, C, H, W]`, detached; the network is fixed."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns from")

    def support(self, classes: int) -> int:
        """Return the number of support images. Raise `ConfigError` where there would be more than the limit."""
        wanted = self.per_class * classes
        if wanted > self.largest_support:
            raise ConfigError(
                f"method.per_class: got {self.per_class}, which is {wanted} images of {classes} classes; at most "
                f"{self.largest_support} are taken (method.largest_support={wanted} takes them)"
            )
        return wanted

    def validation_attack(self, threat_model: ThreatModel) -> PGD:
        """Return the attack of the robust accuracy on the validation split."""
        limits = {"norm": threat_model.norm, "eps": threat_model.eps}
        return PGD(**limits, steps=self.validation_steps, loss="margin")

    def better(self, one: tuple[float, float], other: tuple[float, float]) -> bool:
        """Return whether clean and robust accuracy `one` is to be kept rather than `other`, the earlier."""
        if self.chooses_by == "robust":
            one, other = one[::-1], other[::-1]
        return one > other


def batch_loss(
    kernel: Kernel, support: Tensor, targets: Tensor, images: Tensor, wanted: Tensor, reg: float
) -> Tensor:
    """Return L of support images with targets, on a batch of images with the targets `wanted`, all normalised.

    Raises `KernelError` where kernel regression has no solution.
    """
    coefficients = solve(kernel.gram(support, support), targets, reg)
    return 0.5 * (kernel.gram(images, support) @ coefficients - wanted).square().mean()


DISTILLERS = Registry(
    "distiller",
    Distiller,
    "robust_nas.distillation",
    {"kip": "kip:KIP", "adv-kip": "adversarial_kip:AdversarialKIP"},
    group="robust_nas.distillers",
)

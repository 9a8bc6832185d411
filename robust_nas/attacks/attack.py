"""The protocol of attacks: options that every attack has, what others may ask of it, and how it is called.

A new attack is a subclass with its options and `perturb`, in a file of its own, and a line in `ATTACKS`.
Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; `eps` is on the 0..1 scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from robust_nas.attacks.losses import SATURATING
from robust_nas.attacks.norms import Norm
from robust_nas.attacks.threat_model import inherited, refuse_beyond_images
from robust_nas.config import Count, NonNegative
from robust_nas.errors import AttackError
from robust_nas.registry import Method, MethodField, Registry, methods_in

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks.attacked_model import AttackedModel
    from robust_nas.attacks.engine import AttackResult

Guide = Literal["gradient", "queries", "surrogates", "generator", "chance"]
Compile = Literal["never", "auto", "always"]


class Passes(NamedTuple):
    """Forward and backward passes of one image, at most; a backward pass goes to the input alone."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Return the sum: an input gradient costs about as much as a forward pass."""
        return self.forward + self.backward


class Attack(Method):
    """Base of all attacks.

    `fold`: in eval mode the attack works on a copy with batch norm folded into the convolutions, in channels-last
    memory order, where the model can be traced; success is judged on the same numbers up to rounding.
    `precision`: of the forward and backward passes that make the candidates; the returned one is chosen in float32.
    `compile`: input gradients by torch.compile of the folded copy (`compiling.py`); `auto`: where it is likely to pay.
    `eot`: forward passes whose mean softmax is attacked (expectation over transformation), for random models.
    """

    bounded: ClassVar[bool] = True  # whether no result is farther than eps from its image, where eps is given
    for_training: ClassVar[bool] = (
        False  # whether it is cheap enough for every step of a training or a search
    )
    access: ClassVar[Literal["gradient", "score", "decision"]] = "gradient"  # what it needs of the model
    iterative: ClassVar[bool] = (
        False  # whether it has `effort`, `doubled` and `shortened`: checks repeat it so
    )
    twice_differentiated: ClassVar[bool] = False  # whether it takes second derivatives, never in bf16
    external: ClassVar[bool] = False  # whether another package runs it, in float32, on the model as it is
    weighs_rejection: ClassVar[bool] = False  # whether its loss sees class and rejection of a detector apart
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")  # for which it is defined

    eps: NonNegative | None  # largest perturbation on the 0..1 scale; None: the box alone bounds it
    norm: Norm = "linf"  # in which eps bounds the perturbation
    bn: Literal["eval", "batch"] = "eval"  # batch-norm statistics: the running ones, or those of the batch
    fold: bool = True  # attack a copy with batch norm folded into the convolutions
    precision: Literal["float32", "bf16"] = "float32"  # numbers in which candidates are made
    # input gradients by torch.compile. Left out of records while `never`: older ones tell the same attack.
    compile: Compile = Field(default="never", exclude_if=lambda compile: compile == "never")
    eot: Count = 1  # forward passes a gradient, for random models

    @model_validator(mode="after")
    def _defined_in_the_norm(self) -> Self:
        if self.norm not in self.norms:
            raise ValueError(
                f"norm is {self.norm!r}, allowed for {self.label}: {', '.join(self.norms)}; "
                f"attacks that know {self.norm}: {', '.join(_defined_in(self.norm))}"
            )
        return self

    @model_validator(mode="after")
    def _within_the_box(self) -> Self:
        refuse_beyond_images(self.norm, self.eps)
        return self

    @model_validator(mode="after")
    def _can_be_compiled(self) -> Self:
        if self.compile == "always" and self.not_compiled:
            raise ValueError(f"compile is 'always', but {self.not_compiled}; allowed here: never, auto")
        return self

    @property
    def not_compiled(self) -> str | None:
        """Return why these options leave nothing to compile, or None."""
        if self.access != "gradient":
            return "the attack takes no input gradients of the model"
        if self.twice_differentiated:
            return "the attack takes second derivatives, which a compiled copy does not have"
        if not self.fold:
            return "fold is false, and the folded copy is what is compiled"
        return None if self.bn == "eval" else "bn is 'batch', with which the model is not folded"

    def compiled(self, choice: Compile) -> Attack:
        """Return the attack with this `compile` where its own is `never` and there is something to compile."""
        if self.compile != "never" or self.not_compiled:
            return self
        return self.model_copy(update={"compile": choice})

    @property
    def input_gradients(self) -> int:
        """Return the number of backward passes through the attacked model for one batch, at most."""
        return self.passes.backward * self.eot if self.access == "gradient" else 0

    @property
    def radius(self) -> float:
        """Return the largest perturbation that the attack may make, in its norm."""
        return math.inf if self.eps is None else self.eps

    @property
    def objective(self) -> str:
        """Return the name of the loss that the attack raises (`attacks/losses.py`)."""
        return "ce"

    @property
    def saturates(self) -> bool:
        """Return whether its loss is 0 in float32, and blind, where the model is confident enough."""
        return self.access == "gradient" and self.objective in SATURATING

    @property
    def targeted(self) -> bool:
        """Return whether it leads to classes of its choice, instead of away from the label."""
        return False

    @property
    def parameter_free(self) -> bool:
        """Return whether it chooses its step sizes itself, so that a weak setting cannot flatter a model."""
        return False

    @property
    def guided_by(self) -> Guide:
        """Return what leads it: the model's gradient or answers, other models, a trained generator, or chance."""
        return "gradient" if self.access == "gradient" else "queries"

    @property
    def returns_best(self) -> bool:
        """Return whether the result is the best iterate per example (rather than the last one)."""
        return True

    @property
    def effort(self) -> str:
        """Return the length of an iterative attack in words, such as "20 steps from 2 starts"."""
        raise NotImplementedError(f"{type(self).__name__} does not say how long it runs")

    def doubled(self) -> Attack:
        """Return an iterative attack with twice the steps from twice the starts."""
        raise NotImplementedError(f"{type(self).__name__} cannot be run with more effort")

    def shortened(self, steps: int) -> Attack:
        """Return an iterative attack as one run of at most `steps` steps on the cross-entropy, for two classes too."""
        raise NotImplementedError(f"{type(self).__name__} cannot be run with less effort")

    def scaled(self, factor: float) -> Self:
        """Return the attack with eps, and with the step size where it names one, times `factor`."""
        keys = {"eps", "step_size"} & type(self).model_fields.keys()
        given = {key: getattr(self, key) for key in keys}
        return self.model_copy(
            update={key: factor * value for key, value in given.items() if value is not None}
        )

    @property
    def on_twin(self) -> Attack | None:
        """Return the attack that it makes on a defended model's network without the defence; None: it makes none."""
        return None

    def parts(self) -> tuple[Attack, ...]:
        """Return the attacks that a report lists one by one, in the order in which they run."""
        return (self,)

    def model_folders(self) -> tuple[str, ...]:
        """Return the folders of other models that the attack reads."""
        return ()

    def settings(self, classes: int) -> dict[str, Any]:
        """Return the hyper-parameters that the option value does not show, for a report."""
        return {}

    def for_random_model(self, eot: int) -> Attack:
        """Return the attack with `eot` passes per gradient, or with its own number where it has one."""
        return self.model_copy(update={"eot": eot}) if self.eot == 1 else self

    @property
    def passes(self) -> Passes:
        """Return what one image takes at most, without `eot`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many passes it takes")

    @property
    def query_budget(self) -> int | None:
        """Return the queries of one image at most, with `eot`; None for an attack that does not live on answers.

        Such an attack counts its queries (`attacks/query_log.py`).
        """
        asks = self.access != "gradient" and self.guided_by in ("queries", "chance")
        return self.passes.forward * self.eot if asks else None

    @property
    def crafting_passes(self) -> int:
        """Return the forward-pass equivalents of one image in training, without `eot`.

        A step is a forward pass and the gradient of the images: 2. The passes of a start and of a last iterate are left
        out, as in published counts. Attacks without gradients are counted by their forward passes.
        """
        forward, backward = self.passes
        return 2 * backward or forward

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which the attack is not defined."""
        return 2

    @property
    def least_side(self) -> int:
        """Return the number of rows and of columns below which the attack is not defined."""
        return 1

    def refuse_undefined(self, classes: int, shape: tuple[int, ...], abstains: bool = False) -> None:
        """Raise `AttackError` where the attack is not defined for such a model or images of `shape` (C, H, W)."""
        if classes < self.least_classes:
            raise AttackError(
                f"{self.label} needs at least {self.least_classes} classes, the model has {classes}; "
                "list other attacks, or another loss or fewer targets"
            )
        self.refuse_small_images(shape)

    def refuse_model(self, model: nn.Module) -> None:
        """Raise `AttackError` for a model that the attack was not made for, before it is run."""

    def refuse_new_models(self) -> None:
        """Raise `AttackError` where the attack is for one model alone: a job attacks what it has yet to make."""

    def refuse_small_images(self, shape: tuple[int, ...]) -> None:
        """Raise `AttackError` where the attack is not defined for images of `shape` (C, H, W)."""
        height, width = shape[1:]
        if min(height, width) < self.least_side:
            raise AttackError(
                f"{self.label} in {self.norm} needs images of at least {self.least_side} x {self.least_side} "
                f"pixels, got {height} x {width}"
            )

    def refuse_images(self, images: Tensor, labels: Tensor) -> None:
        """Raise `AttackError` for images uint8 or float `[N, C, H, W]`, or labels `[N]`, that it cannot take."""

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return adversarial images `[B, C, H, W]` for `model.images` and `model.labels`: the algorithm.

        The best iterate per example, the image itself included, unless the attack is asked for the last one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Return adversarial images `[B, C, H, W]`, detached; the model is left as it was.

        `generator` lives on the images' device; without one, a fresh generator with seed 0 is used.
        Raises `AttackError` for images outside 0..1 or of a wrong shape or type.
        """
        return self.run(model, images, labels, generator).images

    def craft(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Return the same for images and labels that are known to be sound; nothing is read back from the device.

        This is the call of training and search, which made their batches themselves.
        """
        from robust_nas.attacks.engine import run

        return run(self, self.perturb, model, images, labels, generator, checked=True).images

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
        *,
        trace: bool = False,
    ) -> AttackResult:
        """Return adversarial images with their cost, the form of the model and, with `trace`, every step's loss."""
        from robust_nas.attacks.engine import run

        return run(self, self.perturb, model, images, labels, generator, trace=trace)


class BoundedAttack(Attack):
    """An attack that moves an image by at most eps."""

    eps: NonNegative


class MinimalAttack(Attack):
    """An attack that looks for the smallest perturbation that is adversarial.

    With `eps: null` it may be of any size; otherwise at most eps, and the image itself comes back where none is.
    """

    eps: NonNegative | None = None
    bn: Literal["eval"] = "eval"  # running batch-norm statistics. Done examples leave the batch: it has none

    @property
    def saturates(self) -> bool:
        """Return False: the logits themselves lead it."""
        return False


ATTACKS = Registry(
    "attack",
    Attack,
    "robust_nas.attacks",
    {
        "fgsm": "fgsm:FGSM",
        "fgsm-rs": "fgsm_rs:FGSMRS",
        "n-fgsm": "n_fgsm:NFGSM",
        "pgd": "pgd:PGD",
        "second-order": "second_order:SecondOrder",
        "apgd": "apgd:APGD",
        "fmn": "fmn:FMN",
        "carlini-wagner": "carlini_wagner:CarliniWagner",
        "deepfool": "deepfool:DeepFool",
        "square": "square:Square",
        "ai-gan": "ai_gan:AIGAN",
        "zoo": "zoo:ZOO",
        "boundary": "boundary:Boundary",
        "hop-skip-jump": "hop_skip_jump:HopSkipJump",
        "opt": "opt:OPT",
        "sign-opt": "sign_opt:SignOPT",
        "noise": "noise:Noise",
        "transfer": "transfer:Transfer",
        "ladder": "ladder:LatentBoundary",
        "unaware": "unaware:Unaware",
        "joint": "joint:Joint",
        "saved": "saved:Saved",
        "autoattack": "autoattack:AutoAttack",
    },
    group="robust_nas.attacks",
)


def _defined_in(norm: Norm) -> list[str]:
    """Return the names of the built-in attacks that know a norm; asking imports their files."""
    return [name for name in ATTACKS.built_in if norm in ATTACKS.get(name).norms]


def attacks_in(value: object, place: str) -> Iterator[tuple[str, Attack]]:
    """Return every attack among options with its place, such as `training.loss.attack`; not those within an attack."""
    return methods_in(value, place, Attack)


def attack_field(
    allows: Callable[[type[Attack]], bool] | None = None,
    needs: str = "",
    *,
    default: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> MethodField:
    """Return what makes a field of options hold an attack (`Registry.field`).

    Norm and eps (and surrogates, where the attack takes some) come from the config's threat model where the attack's
    own keys do not say; `presets` are weaker.
    """
    return ATTACKS.field(allows, needs, default=default, presets=lambda: {**(presets or {}), **inherited()})


def training_attack_field(
    *, default: str | None = None, presets: Mapping[str, Any] | None = None
) -> MethodField:
    """Return the same for an attack inside a training step or a search: fit for it, and the last iterate is taken.

    A network in training is never the one that a generator was trained for, so that it may be another (`transfer`).
    """
    return attack_field(
        lambda attack: attack.for_training,
        "it is not fit for training",
        default=default,
        presets={"keep": "last", "transfer": True, **(presets or {})},
    )

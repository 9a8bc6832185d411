"""AutoAttack (Croce and Hein, 2020) through the authors' own package: the suite that published tables use.

    standard   APGD-CE, APGD-T, FAB-T, Square, each on the examples that those before it left right
    rand       APGD-CE, APGD-DLR with 20 forward passes per gradient, for randomised models

A list of attacks uses the settings of the standard suite: 100 iterations, one restart, 9 target classes, 5,000 queries.
In L1 the APGDs of the standard version are those of 2021, in three balls of 30, 30 and 40 iterations: the untargeted
ones from five starts, APGD-T with five target classes. With fewer than ten classes the targeted attacks go through all
the other classes.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks.attack import BoundedAttack, Guide, Passes
from robust_nas.attacks.norms import Norm
from robust_nas.config import Positive
from robust_nas.errors import AttackError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks.engine import AttackResult

OfficialAttack = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
STANDARD: tuple[OfficialAttack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
RANDOMISED: tuple[OfficialAttack, ...] = ("apgd-ce", "apgd-dlr")
TARGETS = 9
EOT = 20  # forward passes per gradient of the version for randomised models
LEAST_CLASSES = {"apgd-t": 4, "apgd-dlr": 3}  # their losses rank this number of logits; the others need two
CHECKS = 10  # forward passes of the package's own checks and of the clean answer
PASSES: dict[str, Passes] = {  # of an example that is never broken, without the checks; measured
    "apgd-ce": Passes(101, 101),
    "apgd-dlr": Passes(101, 101),
    "apgd-t": Passes(102 * TARGETS, 101 * TARGETS),
    "fab": Passes(202, 100),
    "fab-t": Passes(203 * TARGETS, 100 * TARGETS),
    "square": Passes(5002, 0),
}
BALLS = 3  # of APGD in L1, one after the other: each starts with a pass of its own
RESTARTS_L1, TARGETS_L1 = 5, 5  # of the untargeted APGDs, and of APGD-T, of the standard version


class AutoAttack(BoundedAttack):
    """AutoAttack (Croce and Hein, 2020) through the authors' own package, or a list of its attacks.

    Listed attacks run with the settings that they have in the standard suite; `version: rand` is the suite for
    randomised models, with 20 forward passes per gradient.
    """

    external: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    name: Literal["autoattack"] = "autoattack"
    eps: Positive
    # fixed. The package knows none of these: it takes the module itself, in float32.
    bn: Literal["eval"] = Field(default="eval", exclude=True, repr=False)
    fold: Literal[False] = Field(default=False, exclude=True, repr=False)  # fixed
    precision: Literal["float32"] = Field(default="float32", exclude=True, repr=False)  # fixed
    compile: Literal["never"] = Field(default="never", exclude=True, repr=False)
    eot: Literal[1] = Field(default=1, exclude=True, repr=False)  # fixed
    version: Literal["standard", "rand"] = "standard"  # suite for deterministic models, or for random ones
    attacks: tuple[OfficialAttack, ...] | None = Field(default=None, min_length=1)  # None: the whole suite

    @property
    def names(self) -> tuple[OfficialAttack, ...]:
        """Return the attacks that run, in order."""
        return self.attacks or (STANDARD if self.version == "standard" else RANDOMISED)

    @property
    def label(self) -> str:
        """Return a short name for tables and progress bars: the attacks that run."""
        if self.attacks is None:
            return "autoattack" if self.version == "standard" else "autoattack-rand"
        return "+".join(self.attacks)

    @property
    def saturates(self) -> bool:
        """Return whether the cross-entropy alone leads the attacks that run."""
        return set(self.names) <= {"apgd-ce"}

    @property
    def parameter_free(self) -> bool:
        """Return whether every attack that runs is an APGD."""
        return all(name.startswith("apgd") for name in self.names)

    @property
    def guided_by(self) -> Guide:
        """Return "queries" for Square alone."""
        return "queries" if self.names == ("square",) else "gradient"

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which one of the attacks is not defined."""
        return max(LEAST_CLASSES.get(name, 2) for name in self.names)

    @property
    def passes(self) -> Passes:
        """Return the passes of all attacks that run, with EOT where the version has it."""
        eot = EOT if self.version == "rand" else 1
        forward = backward = 0
        for name in self.names:
            factor = eot if name.startswith("apgd") else 1
            took = self._passes_of(name)
            forward += factor * took.forward
            backward += factor * took.backward
        return Passes(forward + CHECKS, backward)

    def _passes_of(self, name: OfficialAttack) -> Passes:
        """Return the passes of one attack without EOT."""
        if not self._in_balls or not name.startswith("apgd"):
            return PASSES[name]
        runs, own = (TARGETS_L1, TARGETS) if name == "apgd-t" else (RESTARTS_L1, 1)
        forward, backward = (runs * (passes // own + BALLS - 1) for passes in PASSES[name])
        return Passes(forward, backward)

    @property
    def _in_balls(self) -> bool:
        """Return whether APGD runs in several balls: in L1, but for randomised models."""
        return self.norm == "l1" and self.version == "standard"

    def _restarts(self, name: OfficialAttack) -> int:
        """Return the starts of one attack."""
        return RESTARTS_L1 if self._in_balls and name in ("apgd-ce", "apgd-dlr") else 1

    @property
    def targets(self) -> int:
        """Return the largest number of target classes of APGD-T."""
        return TARGETS_L1 if self._in_balls else TARGETS

    def parts(self) -> tuple[AutoAttack, ...]:
        """Return one value per attack of the suite, in order."""
        return tuple(self.model_copy(update={"attacks": (name,)}) for name in self.names)

    def settings(self, classes: int) -> dict[str, Any]:
        """Return every hyper-parameter that the option value does not show, by attack, and the package's version."""
        targets = {"targets": min(TARGETS, classes - 1)}
        apgd: dict[str, Any] = {"iterations": 100, "restarts": 1, "rho": 0.75}
        fab = {"iterations": 100, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
        if self._in_balls:
            apgd = {"iterations": 100, "restarts": 1, "eps_factors": [3, 2, 1]}
        every: dict[str, dict[str, Any]] = {
            "apgd-ce": {**apgd, "restarts": self._restarts("apgd-ce")},
            "apgd-dlr": {**apgd, "restarts": self._restarts("apgd-dlr")},
            "apgd-t": {**apgd, "targets": min(self.targets, classes - 1), "restarts": 1},
            "fab": fab,
            "fab-t": {**fab, **targets},
            "square": {"queries": 5000, "restarts": 1, "p_init": 0.8},
        }
        rand = {"eot": EOT} if self.version == "rand" else {}
        return {
            "pyautoattack": metadata.version("pyautoattack"),
            **rand,
            **{name: every[name] for name in self.names},
        }

    def for_random_model(self, eot: int) -> AutoAttack:
        """Return the attack itself: the package averages passes of its own in the version for randomised models."""
        return self

    def refuse_undefined(self, classes: int, shape: tuple[int, ...], abstains: bool = False) -> None:
        """Raise `AttackError` where an attack of the list is not defined for such a model or images (C, H, W)."""
        if abstains:
            raise AttackError(
                "autoattack knows no rejection, and this model abstains; use the suite cascade or a list"
            )
        height, width = shape[1:]
        for name in self.names:
            least = LEAST_CLASSES.get(name, 2)
            if classes < least:
                raise AttackError(
                    f"{name} needs at least {least} classes, the model has {classes}; list other attacks"
                )
            # In L2 and L1, Square starts with a window of odd side over about four fifths of the area; it must fit.
            side = max(round((0.8 * height * width) ** 0.5), 3)
            if name == "square" and self.norm != "linf" and side + (side + 1) % 2 > min(height, width):
                raise AttackError(
                    f"square in {self.norm} cannot tile images of {height}x{width} pixels; list other attacks"
                )

    def craft(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Return the images of `run`: the package looks at its inputs in any case."""
        return self.run(model, images, labels, generator).images

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
        *,
        trace: bool = False,
    ) -> AttackResult:
        """Return adversarial images, or the image itself where no attack succeeded, and the package's warnings.

        The package keeps no losses, so there is no trace.
        Raises `AttackError` for inputs that cannot be attacked, too few classes, or a result outside the ball or box.
        """
        from robust_nas.attacks.official_autoattack import run_official

        return run_official(
            self, self.names, self.version, (self.targets, TARGETS), model, images, labels, generator
        )

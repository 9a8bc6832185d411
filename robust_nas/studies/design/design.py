"""The protocol of study designs: a design makes configurations from the base architecture.

A new design is a subclass with its options and `configurations`, in a file of its own, and a line in `DESIGNS`.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from robust_nas.config import text_field
from robust_nas.registry import Method
from robust_nas.spaces import Architecture

MAX_CONFIGURATIONS = 10_000  # of one design; the largest published grid has 512
RECIPE = "training."  # keys of the training recipe begin with it, all others are the architecture's

InputShape = tuple[int, int, int]  # channels, height, width
Arm = Annotated[
    str, text_field(r"^[A-Za-z0-9._-]*$", "letters, digits, '.', '_' and '-' are taken", max_length=60)
]


class Configuration(NamedTuple):
    """One configuration: its architecture, overrides of the training recipe (`weight_decay=0.001`), and its arm.

    `arm` is a `+`-joined list where the same configuration belongs to several arms. `method` names the training method
    where it is what a design varies; `name` is what the configuration is called then, not by its content.
    """

    architecture: Architecture
    recipe: tuple[str, ...] = ()
    arm: str = ""
    method: str = ""
    name: str = ""


class Design(Method):
    """Base of all designs. `arm` groups the configurations; rules compare arms by their names."""

    arm: Arm = ""  # group of the configurations, by which rules know them

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return the configurations that the design makes from the base, for images `[C, H, W]` and K classes.

        Raises `StudyError` or `ArchitectureError` where the design cannot be met, naming the option and its value.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no configurations")

"""Ensembles: n networks of one architecture, the particles, whose answer is the mean of their softmax.

    p(x) = 1/n sum_i softmax f(x; th_i)                  `draws` None: all particles, one deterministic pass
    p(x) = 1/S sum_s softmax f(x; th_i(s))               `draws` S: each particle i(s) uniform among n, with replacement

The first is the predictive distribution of IG-BNN (Doan et al., ICML 2022, equation 6 of the submission). The second is
the same with fewer passes, and random: it is attacked with expectation over transformation.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from robust_nas.config import Count, check
from robust_nas.errors import ArchitectureError
from robust_nas.operations.cost import Cost
from robust_nas.spaces.architecture import InputShape, Json
from robust_nas.spaces.families import known_architecture
from robust_nas.spaces.wrapped import WrappedArchitecture

MAX_PARTICLES = 1000
_NAME = re.compile(r"ensemble-([0-9]{1,9})(?:-draws-([0-9]{1,9}))?\.(.+)")

Particles = Annotated[Count, Field(le=MAX_PARTICLES)]


class EnsembleArchitecture(WrappedArchitecture):
    """An ensemble: its member's architecture, the number of particles, and how many of them an answer draws."""

    called: ClassVar[str] = "an ensemble"
    network: ClassVar[str] = "robust_nas.nets.ensemble:ParticleEnsemble"
    named_as: ClassVar[str] = "ensemble-N.MEMBER, such as ensemble-5.wrn-10-1"
    has_particles: ClassVar[bool] = True

    type: Literal["ensemble"] = "ensemble"
    particles: Particles  # members of the ensemble
    draws: Particles | None = None  # particles that an answer draws; None: the mean of all

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the ensemble of a name such as `ensemble-5.wrn-10-1` or `ensemble-5-draws-3.arnas`, or None.

        Raises `ArchitectureError` for numbers that no ensemble has, and for a member that is an ensemble.
        """
        found = _NAME.fullmatch(text)
        member = known_architecture(found[3]) if found else None
        if found is None or member is None:
            return None
        draws = found[2] and int(found[2])
        tree = {"name": text, "member": member, "particles": int(found[1]), "draws": draws}
        return check(cls, tree, repr(text), ArchitectureError)

    @property
    def prefix(self) -> str:
        """Return `ensemble-5`, or `ensemble-5-draws-3`."""
        return f"ensemble-{self.particles}" + (f"-draws-{self.draws}" if self.draws else "")

    @property
    def inference_samples(self) -> int | None:
        """Return the particles that an answer draws; None where it takes all."""
        return self.draws

    def describe(self) -> str:
        """Return the size in words."""
        drawn = f", {self.draws} drawn for an answer" if self.draws else ""
        return f"{self.particles} particles{drawn}, each of {self.member.describe()}"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the member's module and arguments, and the numbers of particles and draws."""
        return {**super().arguments(input_shape), "particles": self.particles, "draws": self.draws}

    def cost(self, member: Cost, without_norms: Cost) -> Cost:
        """Return the parameters of all particles, and the MACs of one answer: a pass of each particle or draw."""
        return Cost(self.particles * member.params, (self.draws or self.particles) * member.macs)

    def factors(self) -> dict[str, float | str]:
        """Return the particles, the passes of an answer, and the member's factors."""
        own = {"particles": self.particles, "passes": self.draws or self.particles}
        return {**own, **self.member.factors()}

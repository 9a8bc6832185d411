"""The section `network` of a run config: the size of what a search finds, and what it is made into before training."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import Count, Options, Positive, check
from robust_nas.errors import ArchitectureError
from robust_nas.spaces import (
    Architecture,
    EnsembleArchitecture,
    MeanFieldArchitecture,
    Particles,
    WrappedArchitecture,
)

_ONLY_WHERE_SET: Any = Field(
    default=None, exclude_if=lambda value: value is None
)  # older records have no such key


class NetworkSize(Options):
    """Depth and width of the final network; None takes the space's own. And what it is made into, if anything.

    With `particles` an ensemble of that many, of which `draws` are drawn for an answer (None: all). With `posterior` a
    network with a Gaussian posterior over its weights; `samples` draws are an answer.
    """

    cells: Count | None = None  # depth; None: the space's
    channels: Count | None = None  # width; None: the space's
    particles: Particles | None = _ONLY_WHERE_SET  # members of an ensemble; None: one network
    draws: Particles | None = _ONLY_WHERE_SET  # particles that an answer draws; None: the mean of all
    posterior: Literal["mean-field"] | None = _ONLY_WHERE_SET  # over the weights; None: one network
    samples: Count | None = _ONLY_WHERE_SET  # draws of an answer of a posterior
    initial_sigma: Positive | None = _ONLY_WHERE_SET  # standard deviation of a posterior at the start

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.particles and self.posterior:
            raise ValueError(
                f"posterior: got {self.posterior!r} with particles {self.particles}; a network is one of the two"
            )
        for needed, keys in (("particles", ("draws",)), ("posterior", ("samples", "initial_sigma"))):
            for key in keys:
                if getattr(self, key) is not None and getattr(self, needed) is None:
                    raise ValueError(f"{key}: got {getattr(self, key)}; it needs {needed}")
        return self

    @property
    def alone(self) -> NetworkSize:
        """Return depth and width alone: what a search depends on."""
        return NetworkSize(cells=self.cells, channels=self.channels)

    @property
    def inference_samples(self) -> int | None:
        """Return the draws of an answer that the network takes which is made; None: it is not random."""
        if self.posterior:
            return self.samples or int(MeanFieldArchitecture.model_fields["samples"].default)
        return self.draws

    @property
    def wrapper(self) -> type[WrappedArchitecture] | None:
        """Return the family that the architecture is made into, or None."""
        if self.particles:
            return EnsembleArchitecture
        return MeanFieldArchitecture if self.posterior else None

    def family(self, member: type[Architecture]) -> type[Architecture]:
        """Return the family of the network that is trained, from that of the architecture found."""
        return self.wrapper or member

    def made_of(self, architecture: Architecture) -> Architecture:
        """Return the ensemble, or the network with a posterior, of this architecture, or itself.

        One that is already what the config asks for stays as it is. Raises `ConfigError` for another one, and for a
        member that cannot be one.
        """
        family = self.wrapper
        if family is None:
            return architecture
        keys = family.model_fields.keys() & type(self).model_fields.keys()
        own = {key: value for key in keys if (value := getattr(self, key)) is not None}
        member = dict(architecture)["member"] if architecture.wraps else architecture
        tree = {**own, "name": architecture.name, "member": member}
        made = check(family, tree, "network", ArchitectureError)
        if architecture.wraps and made.nameless() == architecture.nameless():
            return architecture
        if architecture.wraps:
            given = (
                f"particles: got {self.particles}" if self.particles else f"posterior: got {self.posterior!r}"
            )
            raise ArchitectureError(
                f"network.{given}; {architecture.name} is {architecture.called} already: leave it out, or name its "
                f"member {member.name}"
            )
        return made.model_copy(update={"name": made.called_like(member.name)})

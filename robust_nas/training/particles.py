"""Training steps of networks of particles: what they have in common.

n particles, B batch, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from robust_nas.errors import ConfigError
from robust_nas.training.step import StepOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.spaces import Architecture


class ParticleNetwork(Protocol):
    """A network of particles, as steps see it."""

    members: nn.ModuleList

    def member_logits(self, x: Tensor) -> Tensor:
        """Return the logits `[n, B, K]` of all particles for the same images `[B, C, H, W]`."""


class ParticleStepOptions(StepOptions):
    """Base of the options of these steps."""

    needs_end: ClassVar[bool] = False
    usual_loss: ClassVar[str] = "pgd-at"

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` for a network without particles."""
        if not architecture.has_particles:
            raise _refusal(self.name, architecture.called)

    def particles_of(self, network: nn.Module) -> ParticleNetwork:
        """Return a network as one of particles. Raises `ConfigError` for one without."""
        if not hasattr(network, "member_logits"):
            raise _refusal(self.name, type(network).__name__)
        return cast(ParticleNetwork, network)


def _refusal(step: str, network: Any) -> ConfigError:
    return ConfigError(
        f"training.step: {step} trains the particles of an ensemble; the network is {network}, which has none: "
        "set network.particles, or name an architecture such as ensemble-5.wrn-10-1"
    )

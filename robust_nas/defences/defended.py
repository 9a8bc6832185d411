"""A network with a defence around it: the torch half of the room's protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from robust_nas.config import Options, to_dict
from robust_nas.user_code import names_by_content


class DefenceFacts(Protocol):
    """What the module asks of its `Defence`, an option value."""

    abstains: ClassVar[bool]

    @property
    def label(self) -> str:
        """Return a short name for messages."""

    @property
    def not_exported(self) -> str | None:
        """Return why the forward pass cannot be exported as a graph, or None."""

    @property
    def false_alarm_rate(self) -> float | None:
        """Return the share of legitimate images that may be rejected, or None."""

    @property
    def inference_samples(self) -> int | None:
        """Return the forward passes of one answer."""


class Defended(nn.Module):
    """Base of what `Defence.wrap` returns: images `[B, C, H, W]` in 0..1 to logits `[B, K]`, K + 1 where it abstains.

    `module` is the undefended network. A subclass says what `forward` does; tensors of its own (buffers, parameters,
    modules) are stored with the model folder. What is printed of it is all that decides its answers but those.
    """

    def __init__(
        self, module: nn.Module, defence: DefenceFacts, values: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.defence = defence
        self.values = {name: float(value) for name, value in (values or {}).items()}

    @property
    def samples(self) -> int | None:
        """Return the forward passes of one answer, of a random defence or network; None for a deterministic model."""
        own: int | None = getattr(self.module, "inference_samples", None)
        return own if self.defence.inference_samples is None else self.defence.inference_samples

    @property
    def abstains(self) -> bool:
        """Return whether the last logit means "rejected"."""
        return self.defence.abstains

    def own_state(self) -> dict[str, Tensor]:
        """Return the tensors of the defence itself, without those of the network."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("module.")}

    def extra_repr(self) -> str:
        """Return options and calibrated values: they decide the answers, so that the digest has to know them.

        A defence of the user's own is printed by the text of its file, wherever that lies.
        """
        options = to_dict(self.defence) if isinstance(self.defence, Options) else repr(self.defence)
        return f"{json.dumps(names_by_content(options), sort_keys=True)}, {json.dumps(self.values, sort_keys=True)}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images under the defence."""
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")


class BeforeNetwork(Defended):
    """A defence that changes images and asks the network once: f(t(x)); the subclass says what t is."""

    def transformed(self, x: Tensor) -> Tensor:
        """Return the images as the network gets them, of the same shape."""
        raise NotImplementedError(f"{type(self).__name__} transforms nothing")

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits of the transformed images."""
        logits: Tensor = self.module(self.transformed(x))
        return logits

"""Cut a network at a layer, f(x) = h(e(x)), and change what crosses a cut, by hooks that are gone afterwards.

A cut is named by a module, whose output crosses it, or `features`: the input of the classifier. Networks that know
where they can be cut have `latent_layers()`, the names in the order of the forward pass; the last one is the default.

B batch, C channels, H height, W width, K classes, d numbers of a latent vector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError

FEATURES = "features"
SHOWN = 40  # names in an error
Change = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def changed_inputs(changes: Mapping[tuple[nn.Module, int], Change]) -> Iterator[None]:
    """Change inputs of modules inside: each is given by the module and the number of its input."""
    handles = []
    try:
        for (module, number), change in changes.items():

            def replace(
                _: nn.Module, given: tuple[Any, ...], number: int = number, change: Change = change
            ) -> Any:
                return (*given[:number], change(given[number]), *given[number + 1 :])

            handles.append(module.register_forward_pre_hook(replace))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def changed_output(module: nn.Module, change: Change) -> Iterator[None]:
    """Change the output of a module inside."""
    handle = module.register_forward_hook(lambda _, given, output: change(output))
    try:
        yield
    finally:
        handle.remove()


class Cut:
    """A place of a network: the encoder e is what precedes it, the head h what follows.

    `layer` None is the network's own default, or the input of its last linear layer. Raises `ConfigError` for a layer
    that is not there, with the names that are.
    """

    def __init__(self, network: nn.Module, layer: str | None = None, key: str = "layer") -> None:
        self.network, self.key = network, key
        known = latent_layers(network)
        self.layer = layer or (known[-1] if known else FEATURES)
        self.enters = self.layer == FEATURES
        module = _classifier(network) if self.enters else dict(network.named_modules()).get(self.layer)
        if module is None or module is network:
            raise ConfigError(
                f"{key}: got {self.layer[:200]!r}; {type(network).__name__} has {self._names(known)}"
            )
        self.module: nn.Module = module

    def _names(self, known: list[str]) -> str:
        names = known or [name for name, _ in self.network.named_modules() if name]
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{', '.join(names[:SHOWN]) or 'no layers'}{more}"

    def changed(self, change: Change) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the network takes `change(z)` for the latent z."""
        if self.enters:
            return changed_inputs({(self.module, 0): change})
        return changed_output(self.module, change)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Give the list of the latents of every forward pass inside, each detached, `[B, d]` or `[B, c, h, w]`."""
        seen: list[Tensor] = []

        def record(z: Any) -> Any:
            if not isinstance(z, Tensor) or z.dim() not in (2, 4):
                what = f"of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
                raise ConfigError(
                    f"{self.key}: {self.layer} gives {what}; a latent is [B, d] or [B, c, h, w]"
                )
            seen.append(z.detach().clone())
            return z

        with self.changed(record):
            yield seen

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return e(x), and the logits `[B, K]` of the same forward pass, without a gradient."""
        with torch.no_grad(), self.recorded() as seen:
            logits: Tensor = self.network(x)
        return seen[-1], logits

    def head(self, x: Tensor, z: Tensor) -> Tensor:
        """Return h(z), the logits `[B, K]`; `x` are any images `[B, C, H, W]`, which decide nothing."""
        with torch.no_grad(), self.changed(lambda _: z):
            logits: Tensor = self.network(x)
        return logits

    def checked_classes(self, shape: tuple[int, int, int]) -> int:
        """Return K. Raise `ConfigError` where the logits are no function of the latent, or the layer runs twice.

        Two random images of `shape` (C, H, W): with the latent of the one, the other has to get its logits. The network
        is in eval mode.
        """
        parameter = next(self.network.parameters())
        draws = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        x = draws.to(parameter.device, parameter.dtype)
        with torch.no_grad(), self.recorded() as seen:
            logits = self.network(x.clone())
        whole = len(seen) == 1 and torch.allclose(self.head(x.flip(0), seen[0]), logits, rtol=1e-4, atol=1e-5)
        if not whole:
            known = latent_layers(self.network)
            reason = (
                "what follows it sees more than its output"
                if len(seen) == 1
                else f"a forward pass runs it {len(seen)} times"
            )
            raise ConfigError(
                f"{self.key}: {self.layer}: the network cannot be cut there, {reason}; "
                f"it can at {', '.join(known) or FEATURES}"
            )
        return int(logits.shape[1])


def latent_layers(network: nn.Module) -> list[str]:
    """Return the names of the layers at which a network says that it can be cut; none where it does not say."""
    own: Any = getattr(network, "latent_layers", None)
    return list(own()) if callable(own) else []


def _classifier(network: nn.Module) -> nn.Module | None:
    """Return the classifier of a network that names it, else the last linear layer; None without one."""
    own = getattr(network, "classifier", None)
    if isinstance(own, nn.Module):
        return own
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None

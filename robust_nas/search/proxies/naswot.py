"""NASWOT (Mellor et al., ICML 2021): how differently the ReLUs of an untrained network divide the images.

    c_b:  the binary code of image b, 1 where a ReLU is active; N of them in the network
    K_ij = N - hamming(c_i, c_j),    score = log |det K| = sum_b log v_b,    v the eigenvalues of K [B, B]

K is a sum of Gram matrices, so v >= 0; v is clipped at 1e-5 (our choice), which gives equal images a finite, low value.
Batch norm uses the statistics of the batch. Activations other than ReLU have no such code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

LEAST = 1e-5


class NASWOT(Proxy):
    """The log-determinant of the kernel of activation patterns."""

    passes: ClassVar[int] = 1

    name: Literal["naswot"] = "naswot"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the log-determinant. Raises `ConfigError` for a network without a ReLU."""
        from robust_nas.attacks import attack_mode

        with attack_mode(network, "batch"), torch.no_grad(), _patterns(len(images)) as seen:
            network(images)
        if not seen.relus:
            raise ConfigError("naswot: the network has no ReLU, whose patterns it compares")
        v = torch.linalg.eigvalsh(seen.kernel)
        return float(v.clamp(min=LEAST).log().sum())


def _patterns(count: int) -> Any:
    """Return a context that adds up K over every ReLU that is computed inside, as a module or a function."""
    from torch.utils._python_dispatch import TorchDispatchMode

    relus = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)

    class Patterns(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.kernel = torch.zeros(count, count, dtype=torch.float64)
            self.relus = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func in relus:
                on = (out.flatten(1) > 0).float()
                same = on @ on.T + (1 - on) @ (1 - on).T
                self.kernel = self.kernel.to(same.device) + same.double()
                self.relus += 1
            return out

    return Patterns()

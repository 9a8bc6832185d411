"""Networks that bring their own folded copy for attacks, which then trace none."""

from __future__ import annotations

from torch import nn


class SelfFolding(nn.Module):
    """Base of networks that know a faster form of themselves in eval mode than `attacks/folding.py` finds."""

    def folded(self) -> nn.Module | None:
        """Return a copy in eval mode with the present weights and no parameter that wants a gradient; None: trace."""
        raise NotImplementedError(f"{type(self).__name__} has no folded copy of its own")

"""Import a heavy module at its first use: the one way by which methods meet torch.

A method's options are read to check a config, its algorithm runs much later or never. So a method file begins with

    from robust_nas.lazy import torch

and uses `torch.` as usual: torch is imported when an attribute of it is first read. Files that define torch modules or
autograd functions import torch plainly, and are themselves imported inside the function that needs them.
"""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING, Any


class LazyModule(types.ModuleType):
    """A stand-in for a module, which is imported when an attribute of it is first read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # what inspection asks of any object
            raise AttributeError(name)
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # the next read costs nothing
        return value


if TYPE_CHECKING:
    import torch as torch
    import torch.nn.functional as F
    from scipy import special as special
    from scipy import stats as stats
else:
    torch = LazyModule("torch")
    F = LazyModule("torch.nn.functional")
    special = LazyModule("scipy.special")  # of one number 60 times as fast as the distributions of `stats`
    stats = LazyModule("scipy.stats")

__all__ = ["F", "LazyModule", "special", "stats", "torch"]

"""How a method's module is made: a class or function by name, so that torch is met when it is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Layer:
    """A class or function that makes a module, and its keyword arguments.

    `target` is `package.module:name`, or the class or function itself. It needs torch alone, also where it is defined:
    the plain-Python export carries the text of its file.
    """

    def __init__(self, target: str | Callable[..., nn.Module], **options: Any) -> None:
        self.target, self.options = target, options

    def resolve(self) -> Callable[..., nn.Module]:
        """Return the class or function; its file is imported now."""
        if not isinstance(self.target, str):
            return self.target
        module, _, name = self.target.partition(":")
        found: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
        return found

    def __call__(self, *arguments: Any) -> nn.Module:
        """Return a new module."""
        return self.resolve()(*arguments, **self.options)

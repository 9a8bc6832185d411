"""Torch modules by name, for networks that are made of other networks.

`NETWORKS.get("robust_nas.nets.mlp:MLPNetwork")` is the class. The plain-Python export writes a table of this name.
"""

from __future__ import annotations

from robust_nas.spaces.architecture import NetworkClass, by_name


class _Networks:
    """The modules of this package and of plugins."""

    def get(self, target: str) -> NetworkClass:
        """Return the module that `package.module:Class` names."""
        found: NetworkClass = by_name(target)
        return found


NETWORKS = _Networks()

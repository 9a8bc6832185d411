"""The name that an architecture's content gives it, so that equal architectures meet under one name.

Residual: the literature's name where there is one (`wrn-10-2`, `rrn-a1`), else blocks and channels
(`d2-2-2.w16-32-26`). MLP: `mlp-d3-w64`. What is not default follows (`wrn-10-2.silu`, `mlp-d3-w64.lecun`). Cells: the
architecture's own name, then cells and channels (`arnas.c8.ch16`), and a content hash where the genotype is not a
shipped one's. A class of the user's own is named with a hash of its file's content, never with its path
(`mlp-d3-w64.Swish-h1a2b3c4d`). Each family says its own (`Architecture.content_name`).
"""

from __future__ import annotations

from functools import lru_cache

from robust_nas.spaces.architecture import Architecture, Json, digest
from robust_nas.spaces.families import load_architecture
from robust_nas.spaces.files import shipped_names
from robust_nas.spaces.layout import MAX_NAME


def canonical_name(architecture: Architecture) -> str:
    """Return a name of at most 200 characters that differs where architectures differ in more than their names."""
    nameless = architecture.nameless()
    for name, shipped in _shipped().items():
        if shipped == nameless:
            return name
    name = architecture.content_name(_shipped())
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 10]}.h{digest(nameless)}"


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Json]:
    """Return the shipped architectures by name, without their names."""
    shipped = (load_architecture(name) for name in shipped_names("architectures"))
    return {architecture.name: architecture.nameless() for architecture in shipped}

"""The name that an architecture's content gives it, so that equal architectures meet under one name.

Residual: the literature's name where there is one (`wrn-10-2`, `rrn-a1`), else blocks and channels
(`d2-2-2.w16-32-26`). MLP: `mlp-d3-w64`. What is not default follows (`wrn-10-2.silu`, `mlp-d3-w64.lecun`). Cells: the
architecture's own name, then cells and channels (`arnas.c8.ch16`), and a content hash where the genotype is not a
shipped one's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from robust_nas.config import json_copy, to_dict
from robust_nas.spaces.architecture import Architecture, CellArchitecture, load_architecture
from robust_nas.spaces.files import shipped_names
from robust_nas.spaces.mlp import MLPArchitecture
from robust_nas.spaces.residual import BLOCKS, ResidualArchitecture

MAX_NAME = 200
_SIZE = re.compile(r"\.c[0-9]+\.ch[0-9]+(\.f[0-9-]+)?(\.h[0-9a-f]{8})?$")


def canonical_name(architecture: Architecture) -> str:
    """A name of at most 200 characters that differs where architectures differ in more than their names."""
    nameless = _nameless(architecture)
    for name, shipped in _shipped().items():
        if shipped == nameless:
            return name
    if isinstance(architecture, CellArchitecture):
        name = _cell_name(architecture)
    elif isinstance(architecture, MLPArchitecture):
        name = ".".join([f"mlp-d{architecture.depth}-w{architecture.width}", *_changes(architecture)])
    else:
        name = ".".join([_residual_size(architecture), *_changes(architecture)])
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 10]}.h{_hash(nameless)}"


def _residual_size(architecture: ResidualArchitecture) -> str:
    """`wrn-D-k` where depths and widths are uniform, else the numbers."""
    depths, widths = architecture.depths, architecture.widths
    factor = widths[0] // 16
    if len(depths) == 3 and set(depths) == {depths[0]} and widths == (16 * factor, 32 * factor, 64 * factor):
        return f"wrn-{6 * depths[0] + 4}-{factor}"
    return f"d{'-'.join(map(str, depths))}.w{'-'.join(map(str, widths))}"


def _changes(architecture: ResidualArchitecture | MLPArchitecture) -> Iterator[str]:
    """Everything but the size that is not what it would be if left out."""
    usual: dict[str, Any] = {}
    if isinstance(architecture, ResidualArchitecture):
        usual = {"strides": (1, *[2] * (len(architecture.depths) - 1)), **BLOCKS[architecture.block]}
    for key, field in type(architecture).model_fields.items():
        value = getattr(architecture, key)
        if field.is_required() or value == usual.get(key, field.default):
            continue
        if isinstance(value, bool):
            yield key if value else f"not-{key}"
        elif isinstance(value, str):
            yield value
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            yield f"{key}{'-'.join(map(str, numbers))}"


def _cell_name(architecture: CellArchitecture) -> str:
    """The name before a resizing, the size, and a hash of all that neither says."""
    stem = _SIZE.sub("", architecture.name)[:120]
    tree = _nameless(architecture)
    filters = tree["layout"].pop("filters")
    del tree["cells"], tree["channels"]
    size = f".c{architecture.cells}.ch{architecture.channels}"
    known = _shipped().get(stem)
    if known is not None and known["type"] == "cell":
        known = json_copy(known)
        usual = known["layout"].pop("filters")
        del known["cells"], known["channels"]
        if known == tree:
            return stem + size + ("" if filters == usual else f".f{'-'.join(map(str, filters))}")
    listed = f".f{'-'.join(map(str, filters))}"
    return stem + size + (listed if len(listed) <= 40 else "") + f".h{_hash([tree, filters])}"


def _nameless(architecture: Architecture) -> dict[str, Any]:
    tree = to_dict(architecture)
    del tree["name"]
    return tree


def _hash(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    """The shipped architectures by name, without their names."""
    shipped = (load_architecture(name) for name in shipped_names("architectures"))
    return {architecture.name: _nameless(architecture) for architecture in shipped}

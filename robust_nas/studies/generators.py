"""Which configurations a study compares: the union of what its generators make.

`grid` and `list` (`grid.py`), `iso` (`iso.py`) and `ratio` (`ratio.py`). None of them needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from robust_nas.config import to_dict
from robust_nas.errors import StudyError
from robust_nas.spaces import Architecture
from robust_nas.studies.choices import Choice, InputShape
from robust_nas.studies.grid import Grid, Listed
from robust_nas.studies.iso import Iso
from robust_nas.studies.ratio import Ratio

__all__ = ["Choice", "Generator", "Grid", "Iso", "Listed", "Ratio", "all_choices"]

Generator = Annotated[Grid | Iso | Ratio | Listed, Field(discriminator="name")]


def all_choices(
    generators: Iterable[Grid | Iso | Ratio | Listed],
    base: Architecture,
    input_shape: InputShape,
    classes: int,
) -> list[Choice]:
    """The choices of all generators, in order, each configuration once.

    The same configuration (architecture apart from its name, and recipe) keeps its first place and name, and the arms
    of all its appearances, joined by `+`. Raises `StudyError` where two architectures have one name.
    """
    union: dict[tuple[str, tuple[str, ...]], Choice] = {}
    named: dict[str, str] = {}
    for generator in generators:
        for choice in generator.choices(base, input_shape, classes):
            tree = to_dict(choice.architecture)
            name = tree.pop("name")
            content = json.dumps(tree, sort_keys=True)
            known = union.get((content, tuple(sorted(choice.recipe))))
            if known is not None:
                arms = dict.fromkeys(arm for arm in (*known.arm.split("+"), choice.arm) if arm)
                choice = known._replace(arm="+".join(arms))
            elif named.setdefault(name, content) != content:
                raise StudyError(f"two different architectures of the study are named {name!r}; rename one")
            union[content, tuple(sorted(choice.recipe))] = choice
    return list(union.values())

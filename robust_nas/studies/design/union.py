"""Unite the configurations of several designs, each configuration once."""

from __future__ import annotations

import json
from collections.abc import Iterable

from robust_nas.config import to_dict
from robust_nas.errors import StudyError
from robust_nas.studies.design.design import Configuration


def unite(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Return the configurations in order, each once.

    The same configuration (architecture apart from its name, and recipe) keeps its first place and name, and the arms
    of all its appearances, joined by `+`. Raises `StudyError` where two architectures have one name.
    """
    union: dict[tuple[str, ...], Configuration] = {}
    named: dict[str, str] = {}
    for configuration in configurations:
        tree = to_dict(configuration.architecture)
        name = tree.pop("name")
        content = json.dumps(tree, sort_keys=True)
        key = content, configuration.name, *sorted(configuration.recipe)
        known = union.get(key)
        if known is not None:
            configuration = known._replace(arm=joined(known.arm, configuration.arm))
        elif named.setdefault(name, content) != content:
            raise StudyError(f"two different architectures of the study are named {name!r}; rename one")
        union[key] = configuration
    return list(union.values())


def joined(*arms: str) -> str:
    """Return the arms joined by `+`, each once."""
    return "+".join(dict.fromkeys(arm for names in arms for arm in names.split("+") if arm))

"""What the shell completes: names of recipes and methods, without torch."""

from __future__ import annotations

from collections.abc import Callable


def starting(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a completion of the names that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    from robust_nas.workflows.recipe_files import recipe_names

    return recipe_names()


def strategies() -> list[str]:
    """Return the names of the search strategies."""
    from robust_nas.search import STRATEGIES

    return STRATEGIES.names()


def compressors() -> list[str]:
    """Return the names of the compressors."""
    from robust_nas.compression import COMPRESSORS

    return COMPRESSORS.names()


def defences() -> list[str]:
    """Return the names of the defences."""
    from robust_nas.defences import DEFENCES

    return DEFENCES.names()


def forms() -> list[str]:
    """Return the forms of an export."""
    from robust_nas.workflows.export import FORMS

    return [*FORMS, "all"]

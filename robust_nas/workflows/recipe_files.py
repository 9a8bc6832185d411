"""Files of configs: recipes that ship, one's own, those of runs, and the `base` of which a file says what differs.

    # mine.yaml
    base: quickstart
    name: mine
    training: {loss: trades}

A base is a shipped recipe or another file, seen from the file that names it, and may have a base itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from robust_nas.choices import merged
from robust_nas.config import existing_file, read_yaml, suggestion
from robust_nas.config_paths import seen_from_file
from robust_nas.errors import ConfigError
from robust_nas.overrides import shown
from robust_nas.run_folder import RECIPE
from robust_nas.user_code import folders_of

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
BASE = "base"
BASED = {BASE: Annotated[str, Field(min_length=1, description="recipe or file from which this one differs")]}
EXCLUSIVE = ("suite", "attacks")  # of an evaluation: one of them takes the other away


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_file(recipe: str | Path) -> Path:
    """Return the file of a shipped recipe, of one's own, or in the folder of a run. Raises `ConfigError`."""
    text = str(recipe)
    shipped = FOLDER / f"{text}.yaml" if text in recipe_names() else None
    path = shipped or existing_file(text) or existing_file(Path(text) / RECIPE)
    if path is None:
        raise ConfigError(
            f"{text!r} is neither a recipe, nor a file, nor a folder with a {RECIPE}; "
            f"recipes: {', '.join(recipe_names())}{suggestion(text, recipe_names())}"
        )
    return path


def is_shipped_recipe(path: Path) -> bool:
    """Return whether a file of `recipe_file` ships with the package."""
    return path.parent == FOLDER


def code_folders(recipe: str | Path) -> tuple[Path, ...]:
    """Return the folders for `own_config` from which code in a recipe is seen; none for the folder of a run."""
    path = recipe_file(recipe)
    return tuple(reversed(folders_of(None if is_shipped_recipe(path) else path)))


def read_recipe(model: type[BaseModel], path: Path) -> tuple[dict[str, Any], str]:
    """Return the tree of a config file, its base included, with paths as seen from it; and what it is called in errors.

    `model` reads the tree: a method that a file changes keeps the options of the base's that fit. Raises `ConfigError`
    for a file that cannot be read, a base that is none, and one that is based on itself.
    """
    return _read(model, path, ())


def _read(model: type[BaseModel], path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], str]:
    shipped = is_shipped_recipe(path)
    source = path.stem if shipped else str(path)
    tree = seen_from_file(read_yaml(path), None if shipped else path)
    if BASE not in tree:
        return tree, source
    base = tree.pop(BASE)
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{source}: {BASE}: got {shown(base)}; a shipped recipe or a YAML file is needed; "
            f"recipes: {', '.join(recipe_names())}"
        )
    try:
        file = recipe_file(base)
    except ConfigError as error:
        raise ConfigError(f"{source}: {BASE}: {error}") from None
    chain = (*above, path.resolve())
    if file.resolve() in chain:
        names = " -> ".join(each.name for each in (*chain, file))
        raise ConfigError(f"{source}: {BASE}: got {base!r}, which is based on this file itself: {names}")
    if not is_shipped_recipe(file) and not folders_of(file):
        raise ConfigError(
            f"{source}: {BASE}: got {base!r}, which is in the folder of a run or a model; a shipped recipe or a file "
            "of your own is needed: copy it"
        )
    below, name = _read(model, file, chain)
    take_away(below.get("evaluation"), tree.get("evaluation"))
    return merged(model, below, tree), f"{source} (base: {name})"


def take_away(base: Any, changes: Any) -> None:
    """Remove the suite of a base where the changes list attacks, and the other way round."""
    if isinstance(base, dict) and isinstance(changes, Mapping):
        for given, other in (EXCLUSIVE, EXCLUSIVE[::-1]):
            if changes.get(given) is not None and other not in changes:
                base.pop(other, None)

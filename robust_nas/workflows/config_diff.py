"""Where configs differ: of recipes, files and run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_nas.config import Options, differences, expand_path, read_yaml, to_yaml_dict
from robust_nas.errors import ConfigError
from robust_nas.run_folder import CONFIG, RECIPE
from robust_nas.workflows.config import load_config

MISSING = "(not there)"


def config_diff(a: str | Path | Options, b: str | Path | Options) -> dict[str, list[Any]]:
    """Return the keys at which two configs differ, in dotted form and sorted, with the values of both.

    A config is a shipped recipe or a YAML file, which are resolved; a run folder, as the run has stored it; or a config
    in Python. A list is one value. Raises `ConfigError`.
    """
    return tree_differences([_tree(config) for config in (a, b)])


def tree_differences(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of every tree at every key where one differs from the first."""
    keys: set[str] = set()
    for tree in trees[1:]:
        keys |= differences(trees[0], tree)
    return {key: [_value(tree, key) for tree in trees] for key in sorted(keys)}


def stored_tree(folder: Path) -> dict[str, Any]:
    """Return the config of a run folder as it is stored: the whole recipe, or what the run depends on."""
    return read_yaml(folder / (RECIPE if (folder / RECIPE).is_file() else CONFIG))


def _tree(config: str | Path | Options) -> dict[str, Any]:
    if isinstance(config, Options):
        return to_yaml_dict(config)
    folder = expand_path(config)
    if not folder.is_dir():
        return to_yaml_dict(load_config(config))
    if not any((folder / name).is_file() for name in (RECIPE, CONFIG)):
        raise ConfigError(f"{folder}: is no run: it has no {CONFIG}")
    return stored_tree(folder)


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return MISSING
        tree = tree[part]
    return tree

"""The config of a compression, from a model folder or a recipe, for compressors by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_nas.choices import changed
from robust_nas.compression import COMPRESSORS
from robust_nas.compression.section import SHORT, STEPS, has_short_form
from robust_nas.config import Options, check, suggestion, to_dict
from robust_nas.errors import ConfigError, UnknownMethodError
from robust_nas.user_code import own_config
from robust_nas.workflows.config import CompressionConfig, load_config, one_list, stored_config, trusting


def compression_config(
    source: Path | str, method: str | None = None, overrides: Sequence[str] = ()
) -> CompressionConfig:
    """Return how a model is compressed: data, recipe and evaluation of its folder, or of a recipe by name.

    `method` names the steps, such as `gdws` or `cstar+gdws`, which keep the options that the model's own recipe has for
    them; without it the steps are those of that recipe, else the first compressor of the registry. Raises
    `ConfigError`.
    """
    names = None if method is None else _names(method)
    if isinstance(source, Path) or Path(source).is_dir():
        path, tree = stored_config(Path(source), CompressionConfig)
        where = str(path)
    else:
        recipe = load_config(source)
        tree = {
            key: to_dict(value) if isinstance(value, Options) else value
            for key, value in recipe
            if key in CompressionConfig.model_fields
        }
        where = source
    own = tree.get("compression")
    own = own if isinstance(own, dict) else {}
    if names is not None:
        own = {**{key: own[key] for key in own if key not in (*SHORT, STEPS)}, **_steps(names, own)}
    elif not own:
        own = {SHORT[0]: {}}
    tree = changed(CompressionConfig, {**tree, "compression": own}, one_list(overrides))
    if "training" not in tree:
        raise ConfigError(
            f"{where}: holds no section training, as in the folder of a study's model; compressed networks are trained "
            "and validated by it: name a recipe that has one, such as --recipe quickstart"
        )
    # Where an override made something else of it, `check` says so.
    given = tree["compression"] if isinstance(tree["compression"], dict) else {}
    if names is not None:
        for name in sorted(set(SHORT) & given.keys() - set(names)):
            raise ConfigError(f"compression.{name}: is set, but --method is {method}, which does not name it")
    with trusting(overrides, *(names or ())):
        return check(CompressionConfig, tree, where, overrides=overrides)


def _names(method: str) -> list[str]:
    """Return the full names of the compressors in `a+b`; code in it is the user's own. Raises `ConfigError`."""
    with own_config(Path.cwd()):
        try:
            return [COMPRESSORS.get(name).model_fields["name"].default for name in method.split("+")]
        except UnknownMethodError:
            raise ConfigError(
                f"--method: got {method[:200]!r}; allowed: {', '.join(COMPRESSORS.names())}, file.py:Class of your "
                f"own, or several joined by +{suggestion(method, COMPRESSORS.names())}"
            ) from None


def _steps(names: list[str], own: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the section for these steps, with the options that `own` has for them in short form."""
    if has_short_form(names):
        return {name: own.get(name) or {} for name in names}
    return {STEPS: [{"name": name, **(own.get(name) or {})} for name in names]}

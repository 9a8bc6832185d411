"""A folder for a model hub: the model folder itself, its card with the verdict, and a `config.json`.

`refresh_card` writes the card of a model folder again once the model has been evaluated.

It is uploaded as it is (`huggingface_hub`'s `upload_folder`), and `load_model` reads what is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robust_nas.errors import ConfigError
from robust_nas.export.metadata import metadata
from robust_nas.files import CARD, is_card, is_writable, write_atomic
from robust_nas.nets import Model
from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS, cost_of
from robust_nas.nets.model_card import model_card, write_card

CONFIG = "config.json"  # by which hubs count downloads; `format` says who wrote it


def export_hub(model: Model, folder: Path) -> None:
    """Write the files of a hub into a folder; `config.json` last. The model's own files are copied byte for byte.

    Raises `ConfigError` for a model that was not read from a folder, `RunError` where a file cannot be written.
    """
    if model.folder is None:
        raise ConfigError("export: the model was not read from a folder; write it with save_model first")
    keys: dict[str, Any] = metadata(model)
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, _card(model, keys))
    for name in (ARCHITECTURE, DESCRIPTION, WEIGHTS):
        if (model.folder / name).is_file():  # a user's own module has no architecture
            write_atomic(folder / name, (model.folder / name).read_bytes())
    text = json.dumps({"library_name": "robust_nas", "model_type": "robust_nas", **keys}, indent=2)
    write_atomic(folder / CONFIG, f"{text}\n".encode())


def refresh_card(model: Model) -> None:
    """Write the card of the model's folder again, with its evaluation; not where the folder has none of ours."""
    folder = model.folder
    if folder is not None and is_card(folder / CARD) and is_writable(folder):
        write_card(folder, _card(model, metadata(model)))


def _card(model: Model, keys: dict[str, Any]) -> str:
    """Return the card of a model with these `metadata`."""
    evaluation = None if keys["verdict"] is None else keys
    cost = cost_of(model.architecture, model.description)
    return model_card(model.architecture, model.description, cost, evaluation)

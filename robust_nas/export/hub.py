"""A folder for a model hub: the model folder itself, its card with the verdict, and a `config.json`.

It is uploaded as it is (`huggingface_hub`'s `upload_folder`), and `load_model` reads what is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robust_nas.errors import ConfigError
from robust_nas.export.metadata import metadata
from robust_nas.files import write_atomic
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
    evaluation = None if keys["verdict"] is None else keys
    folder.mkdir(parents=True, exist_ok=True)
    cost = cost_of(model.architecture, model.description)
    write_card(folder, model_card(model.architecture, model.description, cost, evaluation))
    for name in (ARCHITECTURE, DESCRIPTION, WEIGHTS):
        if (model.folder / name).is_file():  # a user's own module has no architecture
            write_atomic(folder / name, (model.folder / name).read_bytes())
    text = json.dumps({"library_name": "robust_nas", "model_type": "robust_nas", **keys}, indent=2)
    write_atomic(folder / CONFIG, f"{text}\n".encode())

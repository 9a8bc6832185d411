"""The card of a model folder: `README.md` with the YAML metadata that model hubs read.

It says what is known when it is written, and where to look for more. Equal models have equal cards: no dates, no places
of files. A `README.md` that somebody else wrote is left as it is (`is_card`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from robust_nas.config import to_dict
from robust_nas.files import CARD, CARD_MARK, is_card, write_atomic
from robust_nas.spaces import Architecture, Cost

TAGS = ("robust_nas", "image-classification", "adversarial-robustness", "neural-architecture-search")
KEYS = {  # of `made_by`, in their order
    "dataset": "training data",
    "dataset_checksum": "its SHA-256",
    "recipe": "recipe",
    "loss": "loss, with its attack and budget",
    "method": "method",
    "seed": "seed",
    "epoch": "epoch that is kept, from 0",
    "validation_clean": "clean accuracy, validation",
    "validation_robust": "robust accuracy, validation",
    "validation_attack": "attack of the validation",
    "trial": "trial",
}
LONGEST = 300  # characters of a value in a table


def write_card(folder: Path, text: str) -> None:
    """Write the card of a folder, unless a `README.md` of somebody else is there."""
    if not (folder / CARD).exists() or is_card(folder / CARD):
        write_atomic(folder / CARD, text.encode())


def copy_card(source: Path, target: Path) -> None:
    """Copy the card of a folder, where it has one of ours."""
    if is_card(source / CARD):
        write_card(target, (source / CARD).read_text(encoding="utf-8"))


def model_card(
    architecture: Architecture | None,
    description: Any,
    cost: Cost | None,
    evaluation: Mapping[str, Any] | None = None,
) -> str:
    """Return the card of a model.

    Args:
        architecture: None for a module of the user's own.
        description: the `ModelDescription` of the folder.
        cost: parameters and MACs, where they are known.
        evaluation: keys `threat_model` and `verdict` of an export's metadata; None: not evaluated yet.
    """
    name = Path(description.module).name if architecture is None else architecture.name
    metadata = {
        "library_name": "robust_nas",
        "license": "unknown",  # for who publishes the model to choose
        "pipeline_tag": "image-classification",
        "tags": list(TAGS),
        **_hub_datasets(description.made_by),
        "metrics": ["accuracy"],
        **({} if evaluation is None else {"model-index": _index(name, evaluation)}),
    }
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n",
        f"{CARD_MARK.decode()}. Edit it freely once this line is removed: it is then left as it is. -->\n",
        f"# {_text(name)}\n",
        "An image classifier, made with robust_nas for accuracy under adversarial attack.\n",
        f"## Model\n\n{_table(_model(architecture, description, cost))}",
        f"## Training\n\n{_table(_training(description.made_by))}",
        f"## Evaluation\n\n{_evaluation(evaluation)}",
        f"## How to load it\n\n{_loading(architecture, description)}",
        f"## Limits\n\n{_limits(description)}",
    ]
    return "\n".join(parts)


def _hub_datasets(made_by: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the key `datasets`, where the name is one that a hub takes."""
    name = made_by.get("dataset")
    return {"datasets": [name]} if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) else {}


def _index(name: str, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results as hubs list them."""
    threat, verdict = evaluation["threat_model"], evaluation["verdict"]
    attack = f"{threat['norm']}, eps {threat['eps']:.4g}"
    metrics = [
        {"type": "accuracy", "name": "clean accuracy", "value": verdict["clean"]},
        {"type": "accuracy", "name": f"robust accuracy ({attack})", "value": verdict["robust"]},
    ]
    dataset = {"name": verdict["dataset"], "type": verdict["dataset"], "split": "test"}
    return [{"name": name, "results": [{"task": {"type": TAGS[1]}, "dataset": dataset, "metrics": metrics}]}]


def _model(architecture: Architecture | None, description: Any, cost: Cost | None) -> dict[str, Any]:
    channels, height, width = description.input_shape
    names = description.class_names
    forms = Counter(layer.form for layer in description.layers if layer.form not in ("biased", "identity"))
    found: dict[str, Any] = {
        "architecture": "a module of the user's own" if architecture is None else architecture.called,
        "name": Path(description.module).name if architecture is None else architecture.name,
        "input": f"{channels}x{height}x{width} pixels, float in 0..1; the normalisation is inside",
        "classes": f"{len(names)}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}",
    }
    if cost is not None:
        found |= {"parameters": f"{cost.params:,}", "MACs of an image": f"{cost.macs:,}"}
    if forms:
        found["layers in another form"] = ", ".join(f"{count} {form}" for form, count in forms.items())
    if description.defence is not None:
        found["defence"] = to_dict(description.defence.method)
    return found


def _training(made_by: Mapping[str, Any]) -> dict[str, Any]:
    known = {title: made_by[key] for key, title in KEYS.items() if key in made_by}
    return known | {key: value for key, value in made_by.items() if key not in KEYS and key != "module"}


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return (
            "This card was written before any evaluation. `robust-nas evaluate FOLDER` attacks the model on test "
            "images, writes a folder with a verdict and a report, and this card again, with the figures.\n"
        )
    threat, verdict = evaluation["threat_model"], evaluation["verdict"]
    low, high = verdict["interval"]
    attacks = verdict["attacks"]
    found = {
        "threat model": f"{threat['norm']}, eps {threat['eps']:.4g} (pixels in 0..1)",
        "clean accuracy": f"{100 * verdict['clean']:.2f} %",
        "robust accuracy": f"{100 * verdict['robust']:.2f} % ({100 * low:.2f} to {100 * high:.2f} %)",
        "attacks, the worst case of each image": ", ".join(attacks) if isinstance(attacks, list) else attacks,
        "images": f"{verdict['images']} test images of {verdict['dataset']}, seed {verdict['seed']}",
        "verdict on these figures": verdict["status"],
    }
    remarks = "".join(f"- {_text(text)}\n" for text in verdict["warnings"])
    return _table(found) + (f"\n{remarks}" if remarks else "")


def _loading(architecture: Architecture | None, description: Any) -> str:
    channels, height, width = description.input_shape
    module = "" if architecture is not None else ", module=build()"
    own = "" if architecture is not None else "`build()` makes the module as it was before it was changed.\n"
    return (
        "```python\nimport robust_nas\nimport torch\n\n"
        f'network = robust_nas.load_model("FOLDER"{module})  # in eval mode\n'
        f"logits = network(torch.rand(1, {channels}, {height}, {width}))\n```\n\n"
        f"{own}`robust-nas predict FOLDER IMAGE.png` answers for image files.\n"
    )


def _limits(description: Any) -> str:
    channels, height, width = description.input_shape
    return (
        "- A robust accuracy holds for its threat model and its attacks alone, and is an upper bound: a stronger "
        "attack can only lower it.\n"
        f"- It was made for images like its training data, of {channels}x{height}x{width} pixels, and answers one of "
        "its classes for any other image, too.\n"
        "- Probabilities are no measure of confidence under attack.\n"
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(f"| {_text(key)} | {_text(value)} |\n" for key, value in values.items())
    return f"| | |\n|---|---|\n{rows}"


def _text(value: Any) -> str:
    """Return a value as it is read in Markdown: no markup of a name or of a text is taken for some."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join((text if len(text) <= LONGEST else f"{text[:LONGEST]} ...").split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)

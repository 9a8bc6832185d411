"""What travels with every exported form: how to feed it, what its outputs mean, and how robust it was found to be.

Keys: `format` ("exported by robust_nas ..."), `name`, `input` (name, shape of an image, range), `output`,
`class_names`, `normalisation` (mean and std, which are inside; null for a module of the user's own, which may do
anything inside), `compressed` (how many layers stand in which form), `defence` (of a defended model: options and
values), `made_by`, `threat_model` and `verdict` (clean and
robust accuracy, attacks, images, seed, status, warnings) of the evaluation of these weights, or null: not evaluated;
`versions`.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import torch

from robust_nas._version import __version__
from robust_nas.config import to_dict
from robust_nas.evaluation.finished import finished_evaluations
from robust_nas.evaluation.verdict import version_of
from robust_nas.export.onnx import INPUT, OUTPUT
from robust_nas.nets import Model
from robust_nas.nets.model import ModelDescription

MARK = "exported by robust_nas"


def metadata(model: Model) -> dict[str, Any]:
    """Return the keys above as values of JSON: numbers that are not finite become texts."""
    description = model.description
    threat_model, verdict = _evaluated(model)
    forms = Counter(layer.form for layer in description.layers if layer.form not in ("biased", "identity"))
    values = {
        "format": f"{MARK} {__version__}",
        "name": model.name,
        "input": {"name": INPUT, "shape": list(description.input_shape), "range": [0.0, 1.0]},
        "output": {"name": OUTPUT, "meaning": "logits, one a class"},
        "class_names": list(description.class_names),
        "normalisation": _normalisation(description),
        "compressed": dict(forms) or None,
        **_defence(description),
        "made_by": description.made_by,
        "threat_model": threat_model,
        "verdict": verdict,
        "versions": {"robust_nas": __version__, "torch": str(torch.__version__)},
    }
    # A `nan` in the source would be a name, and in ONNX it is no JSON to other readers.
    return json.loads(json.dumps(values), parse_constant=str)  # type: ignore[no-any-return]


def _defence(description: ModelDescription) -> dict[str, Any]:
    """Return the defence, which is inside, and how an abstaining one rejects; of a plain model no key."""
    stored = description.defence
    if stored is None:
        return {}
    found: dict[str, Any] = {"defence": {**to_dict(stored.method), "values": stored.values}}
    if stored.method.abstains:
        found["output"] = {"name": OUTPUT, "meaning": "logits, one a class, and a last one: rejected"}
    return found


def _normalisation(description: ModelDescription) -> dict[str, Any]:
    """Return mean and std of a network of ours; those of a user's own module are not known."""
    if description.module is not None:
        return {"mean": None, "std": None, "inside": True}
    return {"mean": list(description.mean), "std": list(description.std), "inside": True}


def as_texts(values: dict[str, Any]) -> dict[str, str]:
    """Return the same as texts: strings as they are, everything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _evaluated(model: Model) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return threat model and verdict of the evaluation in or next to a model folder, where it is of this model."""
    if model.folder is None:
        return None, None
    for found in finished_evaluations(model.folder, model.digest):
        tree = found.outcome
        verdict = {
            "status": tree["verdict"]["status"],
            "findings_version": version_of(tree["verdict"]),
            "clean": tree["clean"]["accuracy"],
            "robust": tree["robust"]["accuracy"],
            "interval": tree["robust"]["interval"],
            "attacks": tree["robust"]["attacks"],
            "images": tree["robust"]["images"],
            "dataset": tree["dataset"],
            "seed": tree["seed"],
            "warnings": [warning["text"] for warning in tree.get("warnings", [])],
        }
        return tree["threat_model"], verdict
    return None, None

"""The sentence that reports an evaluation in a paper: everything that its figure needs, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_nas._version import __version__


def paper_sentence(tree: Mapping[str, Any], *, model: str, images: str) -> str:
    """Return a sentence on an evaluation: model, attacks, norm, eps, images, seed, accuracies, verdict, version.

    Args:
        tree: the content of `evaluation.json`, or `Evaluation.to_dict()`; its warnings and notes are added.
        model: the name of the model.
        images: which images were tested, such as "64 of the 360 test images of digits".
    """
    threat, rule = tree["threat_model"], tree["deployed"]
    parts = [f"answers with the mean of {rule['samples']} random passes"] if rule["samples"] else []
    if rule["abstains"]:
        share = tree["clean"].get("rejected")
        rate = "" if share is None else f", as it does {100 * share:.1f} % of the clean ones"
        parts.append(f"may reject an input{rate}; a rejection counts as right")
    answers = f" ({'; '.join(parts)})" if parts else ""
    attacks = " + ".join(tree["robust"]["attacks"])
    doubts = [*(warning["text"] for warning in tree.get("warnings", ())), *tree["notes"]]
    accuracies = (
        f"clean accuracy {_with_interval(tree['clean'])}, robust accuracy {_with_interval(tree['robust'])}"
    )
    return (
        f"The model {model}{answers} was evaluated on {images} under {threat['norm']} perturbations of at most "
        f"{threat['eps']:.4g} (pixels in 0..1), worst case per image over the attacks {attacks} "
        f"(suite {Path(tree['suite']).name}, seed {tree['seed']}) of robust_nas {__version__}: {accuracies}, "
        f"with 95 % Wilson intervals; {_verdict(tree)}." + "".join(f" Note: {doubt}." for doubt in doubts)
    )


def _with_interval(score: Mapping[str, Any]) -> str:
    low, high = score["interval"]
    return (
        f"{100 * score['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f} %, {score['images']} images)"
    )


def _verdict(tree: Mapping[str, Any]) -> str:
    """Return the verdict and the findings that led to it: a figure that it does not carry is never quoted alone."""
    status, reasons = tree["verdict"]["status"], tree["verdict"]["reasons"]
    named = [one["name"] for one in tree["findings"] if f"{one['name']}: {one['text']}" in reasons]
    said = f"the toolkit's verdict on this evidence is {status}"
    if reasons:
        said += f" ({'; '.join(named or reasons)})"
    if status == "UNRELIABLE":
        said += ", so that the robust accuracy is no evidence of robustness"
    return said

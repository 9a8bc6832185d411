"""Training losses, one file each; `LOSSES` knows them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.registry import MethodField, Registry
from robust_nas.training.loss import Loss

LOSSES = Registry(
    "loss",
    Loss,
    "robust_nas.training.losses",
    {
        "natural": "natural:Natural",
        "pgd-at": "pgd_at:PGDAT",
        "trades": "trades:TRADES",
        "mart": "mart:MART",
        "iat": "iat:IAT",
        "j-sigr": "j_sigr:JSIGR",
        "second-order": "second_order:SecondOrderAT",
        "grad-align": "grad_align:GradAlign",
        "ladder": "ladder:Ladder",
        "adv-bnn": "adv_bnn:AdvBNN",
    },
    group="robust_nas.losses",
    renamed={"pgd": "pgd-at"},
    elsewhere={"free-at": "a training step: write step: {name: free-at} next to loss: natural"},
)


def loss_of_steps() -> MethodField:
    """Return what makes a field hold a loss whose steps are all that there is, for what is no training of a network."""
    return LOSSES.field(
        lambda loss: not loss.fits_parts,
        "it fits parts of its own to the training images, or counts them, as only the training of a network does",
    )


def with_present_names(tree: Any) -> Any:
    """Return the plain tree of a stored config with its losses under their present names.

    Older versions wrote `loss: {name: pgd}`. A user's own config is answered with an error instead.
    """
    if isinstance(tree, list):
        return [with_present_names(item) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    renamed = {key: with_present_names(value) for key, value in tree.items()}
    loss = renamed.get("loss")
    if isinstance(loss, dict) and isinstance(
        name := loss.get(LOSSES.key), str
    ):  # an attack's `loss` is a word
        renamed["loss"] = {**loss, LOSSES.key: LOSSES.renamed.get(name, name)}
    return renamed

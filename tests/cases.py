"""Cases that the tests of several rooms share."""

from robust_nas.config import apply_overrides, check
from robust_nas.spaces import load_space
from robust_nas.workflows.config import RunConfig

SMALL_LAYOUT = {
    "stages": ["accurate", "robust"],
    "reduction_cells": ["reduce"],
    "reductions": ["1/2"],
    "filters": [1, 2],
}
CONFIG = {
    "schema_version": 1,
    "name": "tiny",
    "seed": 5,
    "device": "cpu",
    "threads": 1,
    "data": {"name": "digits", "limit": 100, "validation": 0.2, "normalise": "dataset"},
    "space": {"name": "dsara", "changes": {"nodes": 1, "operations": ["skip_connect", "sep_conv_3x3"]}},
    "search": {
        "epochs": 2,
        "stage1_epochs": 1,
        "batch_size": 25,
        "cells": 4,
        "channels": 2,
        "attack": {"name": "fgsm", "eps": 0.1},
    },
    "network": {"cells": 4, "channels": 2},
    "training": {
        "epochs": 1,
        "batch_size": 40,
        "loss": {"name": "natural"},
        "validation_attack": {"name": "pgd", "eps": 0.1, "steps": 1},
    },
    "evaluation": {
        "threat_model": {"norm": "linf", "eps": 0.1},
        "attacks": [
            {"attack": {"name": "fgsm"}, "images": 40},
            {"attack": {"name": "pgd", "steps": 2}, "images": 20},
        ],
    },
}
# Options of what trains on common batches, for a few images and steps; the fixture `short_trainings` allows so few.
SHORT = {"side": 8, "channels": 2, "batch_size": 4}
SHORT_ZERO = {"channels": 2, "side": 8, "cells_per_stage": 1, "batch_size": 4}
SHORT_ZERO_COST = {"reference": 10, "method": {**SHORT_ZERO, "draws": 1, "proxies": ["params"]}}
SHORT_SUPERNET = {**SHORT, "steps": 4, "clean_steps": 2, "score_images": 8, "score_batch": 4}


def config(*overrides):
    return check(RunConfig, apply_overrides(CONFIG, overrides), "test")


def small_space(nodes=1, operations=("skip_connect", "sep_conv_3x3")):
    """Return DSARA's space with two stages and one reduction, so that three cells hold every kind."""
    return load_space("dsara", {"nodes": nodes, "operations": list(operations), "layout": SMALL_LAYOUT})

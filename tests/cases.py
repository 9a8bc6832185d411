"""Cases that the tests of several rooms share."""

from robust_nas.config import apply_overrides, check
from robust_nas.workflows.config import RunConfig

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


def config(*overrides):
    return check(RunConfig, apply_overrides(CONFIG, overrides), "test")

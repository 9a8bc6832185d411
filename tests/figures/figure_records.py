"""The record of a finished job of every kind, as `draw_figures` takes it."""

import json
import math
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from study_trees import comparison_tree, study_tree

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
DIGITS = load_digits().images / 16
KINDS = ("accurate", "reduce", "robust")


def search_records(steps, switch):
    random = np.random.default_rng(0)
    for step in range(steps):
        second = step >= switch
        yield {
            "step": step,
            "epoch": step // 100,
            "stage": 1 + second,
            "loss_weights": 2.3 - step / steps + 0.1 * random.normal(),
            "loss_natural": 1.5 + 0.1 * random.normal() if second else None,
            "loss_adversarial": 2.2 + 0.1 * random.normal(),
            "gamma": random.uniform() if second else None,
            "norm_natural": random.uniform(0.01, 0.1) if second else None,
            "norm_adversarial": random.uniform(0.01, 0.1),
            "cosine": random.uniform(-1, 1) if second else None,
            "entropy": dict.fromkeys(KINDS, 1.9 - step / steps),
            "skips": {kind: i for i, kind in enumerate(KINDS)},
            "learning_rate": 0.025,
        }


TRAINING = [
    {
        "epoch": epoch,
        "loss": 2.0 - 0.02 * epoch,
        "train_accuracy": 0.3,
        "clean": 0.5 + 0.003 * epoch,
        "robust": 0.3 if epoch % 5 == 0 else math.nan,
        "learning_rate": 0.1,
    }
    for epoch in range(30)
]


def with_queries(tree):
    """An evaluation with a further attack, which counted its queries."""
    curve = [
        {"queries": queries, "distance": 2 / queries if queries > 8 else None, "success": queries / 5000}
        for queries in (1, 8, 80, 800, 5000)
    ]
    queries = {"total": 5000, "median": 5000.0, "most": 5000, "curve": curve}
    last = {**tree["attacks"][-1], "label": "hop-skip-jump-5000", "queries": queries, "trace": []}
    return {**tree, "attacks": [*tree["attacks"], last]}


def _roc(auc, detected):
    points = [
        {"false_alarms": x, "detected": y} for x, y in zip((1.0, 0.2, 0.05, 0.0), detected, strict=True)
    ]
    return {"images": 40, "clean_images": 64, "auc": auc, "at_threshold": points[2], "points": points}


ROC = {"unaware": _roc(0.9, (1.0, 0.95, 0.75, 0.0)), "adaptive": _roc(0.55, (1.0, 0.3, 0.1, 0.0))}
CERTIFIED = {
    "norm": "l2",
    "radius": 0.4,
    "images": 64,
    "points": [{"radius": r, "accuracy": a} for r, a in ((0, 0.9), (0.25, 0.6), (0.5, 0.2))],
}


def with_defence(tree):
    """An evaluation of a detector that certifies."""
    return {**tree, "defence": {"name": "feature-squeezing", "roc": ROC, "certified": CERTIFIED}}


EOT_CURVE = [
    {
        "model": "random",
        "eot": eot,
        "accuracy": a,
        "low": a - 0.1,
        "high": a + 0.1,
        "images": 64,
        "attack": "pgd-10",
    }
    for eot, a in ((1, 0.7), (4, 0.55), (16, 0.41), (64, 0.4))
]
EOT_CURVE.append({**EOT_CURVE[-1], "model": "posterior mean", "eot": None, "accuracy": 0.42})


def example(number, eps=0.125, channels=1, **more):
    random = np.random.default_rng(number)
    clean = np.repeat(DIGITS[number][None], channels, 0)
    adversarial = np.clip(clean + eps * random.choice([-1, 1], clean.shape), 0, 1)
    return {
        "clean": clean,
        "adversarial": adversarial,
        "label": number % 10,
        "clean_prediction": number % 10,
        "adversarial_prediction": (number + 1) % 10,
        "confidence_clean": 0.98,
        "confidence_adversarial": 0.61,
        "attack": "apgd-t (dlr-targeted, 9 targets)",
        "broken": True,
        "perturbation": eps,
        **more,
    }


def saliency(seed, count=3):
    """What a loss shows of the saliency of a network."""
    draws = np.random.default_rng(seed)
    return {
        "images": np.random.default_rng(0).random((count, 1, 8, 8)).tolist(),
        "labels": list(range(count)),
        "gradient": draws.random((count, 4, 4)).tolist(),
        "perturbation": draws.random((count, 4, 4)).tolist(),
        "agreement": draws.uniform(-1, 1, count).tolist(),
    }


def latent_boundary(count=2):
    """What LADDER's parts show of images along the normals of their boundaries."""
    draws, steps = np.random.default_rng(0), [0.0, 1.0, 2.0]
    return {
        "layer": "features",
        "images": draws.random((count, 1, 8, 8)).tolist(),
        "labels": list(range(count)),
        "targets": [9] * count,
        "relative": steps,
        "distance": [1.0] * count,
        "score": [[step - 1] * count for step in steps],
        "decoded": draws.random((len(steps), count, 1, 8, 8)).tolist(),
        "prediction": [[0] * count for _ in steps],
        "prediction_of_image": [0] * count,
    }


LAYER = {
    "name": "cells.0.conv",
    "form": "gdws",
    "reason": None,
    "kernels": [1, 2, 3],
    "g_min": 1,
    "g_median": 2,
    "g_max": 3,
    "error": 0.1,
    "macs": 90_000,
    "macs_after": 40_000,
    "params": 900,
    "params_after": 400,
}
RANKS = [
    {
        "epoch": epoch,
        "primal_residual": 0.3 / (epoch + 1),
        "primal_residual_max": 0.5 / (epoch + 1),
        "rho": 0.1,
        "clean": 0.9,
        "robust": 0.7,
        "ranks": {"a.conv": [3, 4], "b": [2]},
    }
    for epoch in range(3)
]
NODES = [[("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 0), ("dil_conv_3x3", 2)]]
RECORDS = {
    "search": {
        "records": list(search_records(40, 20)),
        "candidates": [
            {"candidate": number, "name": f"a{number}", "macs": 1e6 + number, "params": 10, "score": score}
            for number, score in enumerate([0.4, None, 0.5])
        ],
        "cells": {"robust": NODES},
        "concat": {"robust": [2, 3]},
    },
    "training": {
        "records": TRAINING,
        "best_epoch": 25,
        "saliency": {"before": saliency(0), "after": saliency(1)},
        "latent_boundary": latent_boundary(),
    },
    "distillation": {
        "images": DIGITS[:6, None].tolist(),
        "labels": [0, 1, 2, 0, 1, 2],
        "targets": np.eye(3)[[0, 1, 2, 0, 1, 2]].tolist(),
        "class_names": ["zero", "one", "a name that is long"],
    },
    "evaluation": {
        **with_defence(
            with_queries(json.loads((REFERENCE / "fashion-wrn-10-1-seed0" / "evaluation.json").read_text()))
        ),
        "examples": [example(number) for number in range(3)],
        "class_names": [str(digit) for digit in range(10)],
        "deployed": {"samples": 16, "eot": 16, "draws": 5, "abstains": False},
        "eot_curve": EOT_CURVE,
    },
    "compression": {
        **json.loads((REFERENCE / "quickstart-compression-seed0" / "compression.json").read_text()),
        "layers": [LAYER],
        "records": RANKS,
    },
    "ranking": {
        "ranking": [
            {
                "rank": number + 1,
                "name": f"a{number}",
                "params": 10 + number,
                "macs": 100,
                "score": score,
                "spread": 0.1,
                "truth": 0.4 + number / 10,
            }
            for number, score in enumerate([2.5, 1.5, None])
        ]
    },
    "attack": {
        "records": [
            {
                "epoch": epoch,
                "stage": 1 if epoch < 10 else 2,
                "loss": 20 - epoch / 2,
                "adversarial": 2 - epoch / 20,
                "gan": 0.3,
                "hinge": 0.0,
                "discriminator": 0.5,
                "success": epoch / 30,
                "validation_loss": 2 - epoch / 20,
                "learning_rate": 1e-3,
            }
            for epoch in range(30)
        ],
        "best_epoch": 28,
    },
    "benchmark": {
        "measure": "best value",
        "optimum": 0.5,
        "curves": {
            name: {
                "runs": 5,
                "points": [
                    {
                        "evaluations": number,
                        **dict(zip(("mean", "low", "high"), (best, best - 0.1, best + 0.1), strict=True)),
                        **dict(
                            zip(("regret", "regret_low", "regret_high"), (0.5 - best, 0.0, 0.5), strict=True)
                        ),
                        "optimal": 0.2,
                    }
                    for number, best in enumerate((0.1, 0.2, value), 1)
                ],
            }
            for name, value in {"random": 0.3, "a": 0.5}.items()
        },
    },
    "study": {
        **study_tree(12),
        "published": {"r_d": (0.7, 0.7, "a paper")},
        "comparison": comparison_tree(),
    },
}

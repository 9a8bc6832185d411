"""A made-up analysis tree of a study, of any size, with the gaps that real ones have.

Its functions are longer than usual because each writes out one large tree in one piece.
"""

import itertools
import math

import numpy as np

STAGES = ("stem", "stage 1", "stage 2", "stage 3", "head")


def study_tree(n=12, *, seeds=3, size="ci", gaps=False, failed=0, declared=4, name="width-last", seed=0):
    """`n` configurations on a grid of depths.2 and widths.2; the last `failed` have no result at all.

    `gaps` leaves out what a study may lack: Lipschitz numbers, curves, an optimum, inherited scores.
    """
    rng = np.random.default_rng(seed)
    columns = max(2, min(6, math.isqrt(n)))
    grid = [divmod(i, columns) for i in range(n)]
    points = [
        _point(i, depth + 1, 2 * width + 2, seeds, rng, gaps, i >= n - failed)
        for i, (depth, width) in enumerate(grid)
    ]
    measured = [point for point in points if point["metrics"]]
    for budget in ("params", "macs"):
        best = -1.0
        for point in sorted(measured, key=lambda point: point[budget]):
            point["on_front"][budget] = point["metrics"]["robust"]["mean"] > best
            best = max(best, point["metrics"]["robust"]["mean"])
            point["pareto"][budget] = 0.9 if point["on_front"][budget] else 0.1
    done = sum(len(point["seeds"]) for point in points)
    return {
        "schema_version": 1,
        "name": name,
        "size": size,
        "response": "robust",
        "confidence": 0.95,
        "data": {"dataset": "digits", "images": 360, "train_images": 1200},
        "threat_model": {"norm": "linf", "eps": 0.1},
        "attacks": ["pgd-20 (step 0.02)", "apgd-ce"],
        "seeds": list(range(seeds)),
        "reference": points[min(n - 1, columns)]["name"],
        "recipe": {
            "epochs": 30,
            "loss": {"name": "trades", "attack": {"eps": 0.1}},
            "milestones": [20, 25],
            "ema": None,
        },
        "engine": "local, 2 workers",
        "version": "0.1.0",
        "device": "cpu",
        "points": points,
        "contrasts": _contrasts(measured, declared),
        "trends": [
            {
                "factor": factor,
                "response": "robust",
                "tau": tau,
                "interval": [tau - 0.3, min(1, tau + 0.3)],
                "p": 0.2,
                "n": len(measured),
                "slope_per_doubling": None if factor == "r_d" else 0.004,
                "slope_interval": None if factor == "r_d" else [-0.002, 0.011],
            }
            for factor, tau in (("params", 0.21), ("macs", 0.44), ("r_d", -0.1))
        ],
        "optimum": None if gaps or len(measured) < 4 else _optimum(measured),
        "rules": _rules(),
        "inherited": None
        if gaps
        else {
            "tau": 0.52,
            "interval": [0.2, 0.77],
            "n": len(measured),
            "pairs": [
                {
                    "name": point["name"],
                    "inherited": point["metrics"]["robust"]["mean"] - 0.15 + rng.normal(0, 0.01),
                    "standalone": point["metrics"]["robust"]["mean"],
                }
                for point in measured
            ],
        },
        "cost": {
            "planned": n * seeds,
            "done": done,
            "failed": failed * seeds,
            "diverged": 0,
            "seconds": 4321.0,
            "training_macs": 3.2e14,
        },
        "unfinished": [
            {
                "trial": f"{7919 * (i + 1):016x}",
                "name": point["name"],
                "seed": s,
                "state": "failed",
                "reason": "killed",
            }
            for i, point in enumerate(points[n - failed :])
            for s in range(seeds)
        ],
        "limits": ["Digits are 8x8 images: no statement about CIFAR-10 follows.", "Three seeds."],
    }


def _point(i, depth, width, seeds, rng, gaps, failed):
    depths, widths = (2, 2, depth), (4, 4, width)
    params = [
        464,
        *(int(2900 * d * (w * 2**s) ** 2 / 4) for s, (d, w) in enumerate(zip(depths, widths, strict=True))),
        2570,
    ]
    macs = [29000, *(int(60 * p / 4**s) for s, p in enumerate(params[1:4])), 2560]
    share = params[3] / sum(params)
    level = 0.40 + 0.03 * math.log10(sum(params) / 1e5) - 0.15 * (share - 0.5) ** 2
    runs = 0 if failed else seeds
    clean, robust = (level + gap + rng.normal(0, 0.004, runs) for gap in (0.35, 0.0))
    metrics = {"clean": _metric(clean), "robust": _metric(robust), "stability": _metric(robust + 0.12)}
    metrics["robust_gap"] = _metric(0.05 + 0.02 * rng.random(runs))
    if not gaps:
        metrics["lip_adv"] = _metric(20 + 5 * rng.random(runs))
    if failed:
        metrics = {}
    stages = [{"name": s, "params": p, "macs": m} for s, p, m in zip(STAGES, params, macs, strict=True)]
    lip = {
        when: []
        if gaps or failed
        else [
            {"stage": s, "log_gain": float(g), "values": [float(g)] * runs, "log_gain_rms": float(g) - 0.4}
            for s, g in zip(STAGES[1:], base + 0.2 * rng.normal(size=4), strict=True)
        ]
        for when, base in (
            ("initial", np.array([0.9, 0.4, 0.4, 0.1])),
            ("trained", np.array([1.3, 0.2, 0.5, -0.4])),
        )
    }
    epochs = 12
    return {
        "name": f"wrn-d2-2-{depth}-w4-4-{width}",
        "arm": ("depth", "width")[i % 2],
        "factors": {
            "params": float(sum(params)),
            "macs": float(sum(macs)),
            "depth": float(sum(depths)),
            "width": float(sum(widths)) / 3,
            "last_stage_params_share": share,
            "last_stage_macs_share": macs[3] / sum(macs),
            **{f"depths.{s}": d for s, d in enumerate(depths)},
            **{f"widths.{s}": 16 * 2**s * w for s, w in enumerate(widths)},
            "block": "basic",
        },
        "params": sum(params),
        "macs": sum(macs),
        "stages": stages,
        "r_d": sum(depths) / (sum(depths) + sum(widths)),
        "wd_ratio": None if i % 5 == 4 else 64.0 / depth,
        "rules": [
            {
                "rule": "wd_ratio",
                "value": 64.0,
                "accepted": "7.5 to 13.5",
                "holds": False,
                "source": "Peng et al. 2023",
            }
        ],
        "seeds": list(range(runs)),
        "failed": seeds - runs,
        "diverged": 0,
        "metrics": metrics,
        "lip_stages": lip,
        "curves": []
        if gaps
        else [
            {
                "seed": s,
                "epochs": [
                    {
                        "epoch": e,
                        "loss": 2.3 * math.exp(-e / 6) + 0.4 + 0.02 * rng.random(),
                        "train_accuracy": 0.3 + 0.03 * e,
                        "clean": 0.9 * (1 - math.exp(-(e + 1) / 4)),
                        "robust": None if e % 2 else (level + 0.02) * (1 - math.exp(-(e + 1) / 4)),
                    }
                    for e in range(epochs)
                ],
            }
            for s in range(runs)
        ],
        "pareto": {} if failed else {"params": 0.1, "macs": 0.1},
        "on_front": {} if failed else {"params": False, "macs": False},
    }


def _metric(values):
    values = [float(v) for v in values]
    if not values:
        return None
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    around = None if sd is None else [mean - 3 * sd, mean + 3 * sd]
    image = [mean - 0.03, mean + 0.03]
    return {
        "values": values,
        "mean": mean,
        "sd": sd,
        "seed_interval": around,
        "image_interval": image,
        "interval": around,
    }


def _contrasts(points, declared):
    found = []
    for k, (a, b) in enumerate(itertools.islice(itertools.combinations(points, 2), declared + 3)):
        effect = a["metrics"]["robust"]["mean"] - b["metrics"]["robust"]["mean"]
        found.append(
            {
                "a": a["name"],
                "b": b["name"],
                "response": "robust",
                "effect": effect,
                "interval": [effect - 0.006, effect + 0.006],
                "p": 0.01 * (k + 1),
                "p_holm": min(1.0, 0.04 * (k + 1)) if k < declared else None,
                "equivalent": (None, False, True)[k % 3],
                "n": {"seeds_a": len(a["seeds"]), "seeds_b": len(b["seeds"]), "images": 360},
                "params_ratio": a["params"] / b["params"],
                "macs_ratio": a["macs"] / b["macs"],
                "includes_seeds": len(a["seeds"]) > 1,
                "family": "declared" if k < declared else "exploratory",
            }
        )
    return found


def _optimum(points):
    x = np.linspace(0.2, 0.9, 30)
    y = 0.42 - 0.15 * (x - 0.5) ** 2
    return {
        "along": "last_stage_params_share",
        "response": "robust",
        "location": 0.5,
        "interval": [0.41, 0.62],
        "interior": True,
        "budget": "params",
        "fit": [[float(a), float(b), float(b) - 0.008, float(b) + 0.008] for a, b in zip(x, y, strict=True)],
    }


def _rules():
    rows = (
        (
            "last_stage",
            "A smaller last stage is more robust at equal MACs.",
            "supported",
            0.012,
            [0.004, 0.02],
        ),
        ("more_params", "More parameters do not always help.", "undecided", 0.003, [-0.004, 0.01]),
        ("huang_ratio", "Widths 1 : 1 : 0.4 beat uniform widths.", "contradicted", -0.015, [-0.021, -0.009]),
        ("robustscaling", "Robustness peaks near r_D 0.7.", "supported", 0.71, [0.66, 0.75]),
        ("wd_ratio", "WD in 7.5 to 13.5 is best.", "undecided", None, None),
    )
    return [
        {
            "rule": rule,
            "statement": statement,
            "status": status,
            "unit": "r_D" if rule == "robustscaling" else "share",
            "effect": effect,
            "interval": interval,
            "n": "4 pairs, 3 seeds each, 360 images",
            "held": "MACs within 5 %",
            "reason": "The interval lies above zero."
            if status == "supported"
            else "Too few configurations inside the range.",
            "source": "Huang et al. 2021 (arXiv 2110.03825)",
        }
        for rule, statement, status, effect, interval in rows
    ]


def comparison_tree(methods=("pgd-at", "trades", "n-fgsm"), arms=("equal-epochs", "equal-passes")):
    """Made-up comparison of training methods, the first of which is the reference."""

    def row(number, name):
        means = {"clean": 0.8, "attacked": 0.5, "robust": 0.45}
        metrics = {
            key: {"mean": mean + 0.02 * number, "interval": [mean - 0.05, mean + 0.09]}
            for key, mean in means.items()
        }
        difference = {"effect": 0.02 * number, "interval": [0.02 * number - 0.03, 0.02 * number + 0.03]}
        return {
            "name": name,
            "metrics": metrics,
            "differences": {"robust": difference} if number else {},
        }

    rows = [row(number, name) for number, name in enumerate(methods)]
    return {
        "reference": methods[0],
        "attack": "pgd-20",
        "tables": [{"arm": arm, "rows": rows} for arm in arms],
    }

"""Robustness where everything has a closed form: logistic regression on real digits, for docs/tutorials/logistic.md.

    .venv/bin/python scripts/tutorial_logistic.py                  # about a minute, writes results/tutorial-logistic
    .venv/bin/python scripts/tutorial_logistic.py --splits 2 --out results/tutorial-quick

The images are scikit-learn's digits 3 and 8, 357 of 8x8 pixels in 0..1. They are split in halves at random again and
again; every fit sees the training half, every accuracy is of the test half. The worst case is exact
(`robust_nas/statistics/linear_worst_case.py`); attacks are run on the first split to be held against it.
Everything is written as CSV too: `digits_3_8.csv`, `coefficients.csv` and `margins.csv` are for R.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from robust_nas.attacks import APGD, FGSM, PGD, Attack, HopSkipJump, Predictor, Square
from robust_nas.defences import Defence, FeatureSqueezing, RandomizedSmoothing, SqueezedInput
from robust_nas.evaluation.accuracy import Judged, judge
from robust_nas.figures import style
from robust_nas.statistics.linear_worst_case import LogisticFit, fit_logistic, margins, worst_margins
from robust_nas.statistics.proportions import wilson

Floats = NDArray[np.float64]
OUT = Path("results/tutorial-logistic")
SPLITS = 20
EPS = 0.1  # Linf, of the table and of the attacks
EPSES = np.linspace(0, 0.3, 31)
TRAINED_AT = (0.01, 0.02, 0.05, 0.1, 0.2)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NOISE, COPIES = 0.1, 20
PLAIN = "logistic regression"


class Half(NamedTuple):
    """Images `[N, 64]` in 0..1 and labels -1 (a three) and +1 (an eight) `[N]`."""

    x: Floats
    y: Floats


def digits() -> Half:
    """Return all threes and eights."""
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = np.isin(found.target, (3, 8))
    return Half(found.data[rows] / 16, np.where(found.target[rows] == 8, 1.0, -1.0))


def halves(data: Half, seed: int) -> tuple[Half, Half, Floats]:
    """Return a training and a test half with as many of either class, and which rows are for training `[N]`."""
    draws = np.random.default_rng(seed)
    train = np.zeros(len(data.y), dtype=bool)
    for label in (-1.0, 1.0):
        rows = draws.permutation(np.flatnonzero(data.y == label))
        train[rows[: len(rows) // 2]] = True
    return Half(data.x[train], data.y[train]), Half(data.x[~train], data.y[~train]), train


def ridge_by_folds(train: Half, seed: int) -> LogisticFit:
    """Return the fit with the ridge that has the smallest loss in five folds of the training half."""
    fold = np.random.default_rng(seed).permutation(len(train.y)) % 5
    losses = []
    for ridge in RIDGES:
        total = 0.0
        for each in range(5):
            fit = fit_logistic(train.x[fold != each], train.y[fold != each], ridge=ridge)
            held = margins(fit.weights, fit.bias, train.x[fold == each], train.y[fold == each])
            total += float(np.logaddexp(0, -held).sum())
        losses.append(total)
    return fit_logistic(train.x, train.y, ridge=RIDGES[int(np.argmin(losses))])


def with_noise(train: Half, seed: int) -> LogisticFit:
    """Return the fit to noisy copies of the training half: what noise layers before a linear model come to."""
    draws = np.random.default_rng(seed)
    x = np.concatenate([train.x + NOISE * draws.normal(size=train.x.shape) for _ in range(COPIES)])
    return fit_logistic(x, np.tile(train.y, COPIES))


def adversarial(eps: float, train: Half, seed: int) -> LogisticFit:
    """Return the fit to the worst case within eps (Linf)."""
    return fit_logistic(train.x, train.y, eps=eps)


FITS: dict[str, Callable[[Half, int], LogisticFit]] = {
    PLAIN: lambda train, seed: fit_logistic(train.x, train.y),
    "ridge by 5 folds": ridge_by_folds,
    f"noise, sigma {NOISE}": with_noise,
    **{f"adversarial, eps {eps:g}": partial(adversarial, eps) for eps in TRAINED_AT},
}


def robust_accuracy(fit: LogisticFit, half: Half, eps: float) -> float:
    """Return the share of a half that no perturbation within eps (Linf, in the box) turns: exact."""
    return float((worst_margins(fit.weights, fit.bias, half.x, half.y, eps=eps) > 0).mean())


def network_of(fit: LogisticFit) -> nn.Module:
    """Return the classifier as a torch module of images `[B, 1, 8, 8]`, with the margin as the difference of logits."""
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.stack([-fit.weights / 2, fit.weights / 2])))
        layer.bias.copy_(torch.tensor([-fit.bias / 2, fit.bias / 2]))
    return nn.Sequential(nn.Flatten(), layer).eval()


ATTACKS: dict[str, Attack] = {
    "FGSM, 1 gradient": FGSM(eps=EPS),
    "PGD, 20 gradients": PGD(eps=EPS, steps=20),
    "APGD, 50 gradients": APGD(eps=EPS, steps=50),
    "Square, 1000 scores": Square(eps=EPS, queries=1000),
    "HopSkipJump, 1000 decisions": HopSkipJump(eps=EPS, queries=1000),
}


def attacked(fit: LogisticFit, test: Half) -> dict[str, Floats]:
    """Return the margins `[N]` after every attack, of the images that it found."""
    network = network_of(fit)
    images, labels = tensors(test)
    found = {}
    for name, attack in ATTACKS.items():
        moved = attack(network, images, labels, torch.Generator().manual_seed(0))
        found[name] = margins(fit.weights, fit.bias, moved.flatten(1).double().numpy(), test.y)
    return found


DEFENCES: dict[str, Defence] = {
    "4 grey levels (squeezer bit-2)": SqueezedInput(by="bit-2"),
    "median of 2x2 (squeezer median-2)": SqueezedInput(by="median-2"),
    "detector (feature-squeezing)": FeatureSqueezing(),
    "noise and a vote (randomized-smoothing, sigma 0.1)": RandomizedSmoothing(sigma=0.1, samples=32, n=2000),
}


def families(fit: LogisticFit, train: Half, test: Half) -> tuple[list[dict[str, Any]], Floats]:
    """Return a row a defence: clean, under an attack made on the bare model, and under one made on the defended model.

    Also the certified L2 radii `[N]` of randomized smoothing, 0 where its answer is wrong or it abstains.
    """
    network = network_of(fit)
    images, labels = tensors(test)
    unaware = PGD(eps=EPS, steps=40, loss="margin")
    on_bare = unaware(network, images, labels, torch.Generator().manual_seed(0))
    rows = [
        {
            "defence": "none",
            "clean": share(judge(Predictor.of(network), images, labels)),
            "attacked unaware": share(judge(Predictor.of(network), on_bare, labels)),
            "attacked adaptively": share(judge(Predictor.of(network), on_bare, labels)),
            "false alarms": "",
        }
    ]
    radii = np.zeros(len(labels))
    for name, defence in DEFENCES.items():
        defended = defence.wrap(network, defence.calibrate(network, *tensors(train)))
        predictor = Predictor.of(defended)
        adaptive = unaware.for_random_model(16) if defence.random else unaware
        moved = adaptive(defended, images, labels, torch.Generator().manual_seed(0))
        clean = judge(predictor, images, labels, seed=1)
        alarms = share_of(int(clean.rejected.sum()), len(labels)) if defence.abstains else ""
        rows.append(
            {
                "defence": name,
                "clean": share(clean),
                "attacked unaware": share(judge(predictor, on_bare, labels, seed=2)),
                "attacked adaptively": share(judge(predictor, moved, labels, seed=3)),
                "false alarms": alarms,
            }
        )
        if isinstance(defence, RandomizedSmoothing):
            found = defence.certify(defended, images, torch.Generator().manual_seed(0))
            radii = np.where(found.classes.numpy() == labels.numpy(), found.radii.numpy(), 0.0)
    return rows, radii


def tensors(half: Half) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images `[N, 1, 8, 8]` and classes `[N]`, 0 a three and 1 an eight."""
    images = torch.tensor(half.x, dtype=torch.float32).view(-1, 1, 8, 8)
    return images, torch.tensor((half.y > 0).astype(np.int64))


def share(judged: Judged) -> str:
    """Return how many answers are right (or rejected) as a share with its interval."""
    return share_of(int(judged.right.sum()), len(judged.right))


def share_of(count: int, total: int) -> str:
    """Return a share in %, with Wilson's interval."""
    low, high = wilson(count, total)
    return f"{100 * count / total:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def certified_against_exact(fit: LogisticFit, test: Half, radii: Floats) -> list[dict[str, Any]]:
    """Return the share of images that are certified at an L2 radius, next to the share whose distance is that large."""
    distance = margins(fit.weights, fit.bias, test.x, test.y) / np.linalg.norm(fit.weights)
    return [
        {
            "L2 radius": radius,
            "certified": share_of(int((radii > radius).sum()), len(radii)),
            "exact": share_of(int((distance > radius).sum()), len(radii)),
        }
        for radius in (0.1, 0.2, 0.3)
    ]


def table_of(fits: dict[str, list[LogisticFit]], tests: Sequence[Half]) -> list[dict[str, Any]]:
    """Return a row a fit: mean and range of the splits."""
    rows = []
    for name, each in fits.items():
        shares = {
            f"eps {eps:g}": [robust_accuracy(fit, test, eps) for fit, test in zip(each, tests, strict=True)]
            for eps in (0, 0.05, EPS, 0.2)
        }
        zeros = np.mean([(np.abs(fit.weights) < 1e-6).sum() for fit in each])
        rows.append(
            {
                "fit": name,
                **{
                    key: f"{100 * np.mean(v):.1f} ({100 * min(v):.0f}-{100 * max(v):.0f})"
                    for key, v in shares.items()
                },
                "weights at zero": f"{zeros:.0f}",
                "1-norm of the weights": f"{np.mean([np.abs(fit.weights).sum() for fit in each]):.1f}",
            }
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row.values())) + " |" for row in rows)]) + "\n"


def draw_curves(fits: dict[str, list[LogisticFit]], tests: Sequence[Half], stem: Path) -> None:
    """Draw the exact robust accuracy over eps, a line a fit with the range of the splits."""
    shown = [
        PLAIN,
        "ridge by 5 folds",
        f"noise, sigma {NOISE}",
        "adversarial, eps 0.05",
        "adversarial, eps 0.1",
    ]
    caption = (
        f"Digits 3 and 8, test halves of {len(tests)} random splits; line: mean, band: smallest to largest. The worst "
        "case within eps (Linf, pixels in 0..1) is exact."
    )
    figure, (axes,) = style.new_figure(height=4.2, width=7.2, caption=caption)
    rows = []
    for name, colour in zip(shown, style.CYCLE, strict=False):
        each = np.array(
            [
                [robust_accuracy(fit, test, eps) for eps in EPSES]
                for fit, test in zip(fits[name], tests, strict=True)
            ]
        )
        dashes = "--" if name.startswith("ridge") else "-"  # it lies on the first one
        axes.plot(EPSES, 100 * each.mean(0), dashes, color=colour, label=name)
        axes.fill_between(EPSES, 100 * each.min(0), 100 * each.max(0), color=colour, alpha=0.12, linewidth=0)
        rows += [
            [name, eps, *point]
            for eps, *point in zip(EPSES, each.mean(0), each.min(0), each.max(0), strict=True)
        ]
    axes.axhline(50, color=style.GREY, linestyle=":", linewidth=1)
    axes.text(0.3, 51.5, "chance", ha="right", color=style.GREY, fontsize=8)
    axes.set(xlabel="eps (Linf, pixels 0..1)", ylabel="accuracy in the worst case (%)", ylim=(0, 102))
    axes.legend()
    style.save(figure, stem, (["fit", "eps", "mean", "smallest", "largest"], rows))


def draw_weights(fits: dict[str, list[LogisticFit]], stem: Path) -> None:
    """Draw the weights of the first split as images, each with its own scale."""
    shown = [
        PLAIN,
        "ridge by 5 folds",
        "adversarial, eps 0.05",
        "adversarial, eps 0.1",
        "adversarial, eps 0.2",
    ]
    caption = (
        "Weights of the first split: blue speaks for a three, red for an eight, white is zero. Each picture has a "
        "scale of its own, whose end is in its title."
    )
    figure, axes = style.new_figure(1, len(shown), height=2.6, caption=caption)
    rows = []
    for panel, name in zip(axes, shown, strict=True):
        weights = fits[name][0].weights
        end = float(np.abs(weights).max()) or 1.0
        panel.imshow(weights.reshape(8, 8), cmap="RdBu_r", vmin=-end, vmax=end)
        panel.set_title(f"{name}\n±{end:.2g}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
        rows += [[name, pixel, weight] for pixel, weight in enumerate(weights)]
    style.save(figure, stem, (["fit", "pixel", "weight"], rows))


def draw_attacks(
    found: dict[str, dict[str, Floats]], exact: dict[str, float], count: int, stem: Path
) -> None:
    """Draw the robust accuracy that every attack leaves, next to the exact one."""
    caption = (
        f"The {count} test images of the first split, Linf eps {EPS}. Dashed: the exact worst case, which no attack "
        "can pass. Bars: Wilson's 95% interval over images."
    )
    figure, axes = style.new_figure(1, len(found), height=3.2, caption=caption)
    rows = []
    for panel, (name, after) in zip(axes, found.items(), strict=True):
        panel.axvline(100 * exact[name], color=style.BLACK, linestyle="--", linewidth=1)
        for place, (attack, margin) in enumerate(reversed(after.items())):
            right = int((margin > 0).sum())
            low, high = wilson(right, count)
            share = right / count
            panel.errorbar(
                100 * share, place, xerr=[[100 * (share - low)], [100 * (high - share)]], fmt="o", color=style.BLUE,
                capsize=2, markersize=4,
            )  # fmt: skip
            rows.append([name, attack, share, low, high, exact[name]])
        panel.set_yticks(range(len(after)), list(reversed(after)))
        panel.set(xlabel="accuracy under the attack (%)", xlim=(-3, 103))
        panel.set_title(name)
    style.save(figure, stem, (["fit", "attack", "accuracy", "low", "high", "exact"], rows))


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table for another language."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_data(out: Path, data: Half, train: Floats, fits: dict[str, list[LogisticFit]], test: Half) -> None:
    """Write the images, the weights of the first split, and the margins of its test images."""
    parts = ["train" if each else "test" for each in train]
    rows = ([*map(float, x), int(y), part] for x, y, part in zip(data.x, data.y, parts, strict=True))
    write_csv(out / "digits_3_8.csv", [*(f"p{pixel}" for pixel in range(64)), "label", "part"], rows)
    first = {name: each[0] for name, each in fits.items()}
    write_csv(
        out / "coefficients.csv",
        ["term", *first],
        [
            ["bias", *(fit.bias for fit in first.values())],
            *([f"p{pixel}", *(fit.weights[pixel] for fit in first.values())] for pixel in range(64)),
        ],
    )
    fit = first[PLAIN]
    clean = margins(fit.weights, fit.bias, test.x, test.y)
    worst = worst_margins(fit.weights, fit.bias, test.x, test.y, eps=EPS)
    write_csv(out / "margins.csv", ["clean", f"worst_within_{EPS}"], zip(clean, worst, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, attack, draw and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--splits", type=int, default=SPLITS)
    options = parser.parse_args(arguments)
    if options.splits < 1:
        parser.error(f"--splits: got {options.splits}; at least 1 is needed")
    options.out.mkdir(parents=True, exist_ok=True)
    data = digits()
    split = [halves(data, seed) for seed in range(options.splits)]
    tests = [test for _, test, _ in split]
    fits = {
        name: [fit(train, seed) for seed, (train, _, _) in enumerate(split)] for name, fit in FITS.items()
    }
    rows = table_of(fits, tests)
    write_data(options.out, data, split[0][2], fits, tests[0])
    compared = {name: fits[name][0] for name in (PLAIN, "adversarial, eps 0.1")}
    after = {name: attacked(fit, tests[0]) for name, fit in compared.items()}
    exact = {name: robust_accuracy(fit, tests[0], EPS) for name, fit in compared.items()}
    with style.drawing():
        draw_curves(fits, tests, options.out / "accuracy-over-eps")
        draw_weights(fits, options.out / "weight-maps")
        draw_attacks(after, exact, len(tests[0].y), options.out / "attacks")
    plain, (train, test, _) = fits[PLAIN][0], split[0]
    defended, radii = families(plain, train, test)
    certified = certified_against_exact(plain, test, radii)
    text = "\n".join(markdown(each) for each in (rows, defended, certified))
    (options.out / "table.md").write_text(text)
    print(text)
    print(f"pictures and CSV: {options.out}")


if __name__ == "__main__":
    main()

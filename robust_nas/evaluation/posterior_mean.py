"""What the record of an evaluation holds of a Bayesian network next to the network of its mean weights.

    images, passes, seconds of the comparison (`comparison.py`)
    rows                    posterior mean, transferred, random, in this order: {kind, attack, clean, robust}, scores;
                            on the same first images, each attack alone
        posterior mean      the attack on the network of the mean weights, judged there
        transferred         the same images, judged on the random network
        random              the attack on the random network, with the passes per gradient of `deployed.eot`
    paired                  {only_random, only_mean, p}: of the images that both networks get right as they are, those
                            that only one gets right under the attack on it, and p of McNemar's exact test

The robust accuracy of the evaluation is the worst case over its attacks, `unaware` (made on the mean) among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.evaluation.attack_rows import score

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.side_by_side import SideBySide


def posterior_mean_record(found: SideBySide) -> dict[str, Any]:
    """Return the section `posterior_mean`."""
    both = found.clean & found.twin_clean
    return {
        "images": len(found.clean),
        "passes": found.passes,
        "seconds": found.seconds,
        "rows": [
            row("posterior mean", found.inner.label, found.twin_clean, found.twin_right),
            row("transferred", found.unaware.label, found.clean, found.unaware_right),
            row("random", found.adaptive.label, found.clean, found.adaptive_right),
        ],
        "paired": paired(found.adaptive_right[both], found.twin_right[both]),
    }


def row(kind: str, label: str | None, clean: Tensor, robust: Tensor | None) -> dict[str, Any]:
    """Return a line of the comparison: what is right `[n]` as it is, and under the attack of this label."""
    return {
        "kind": kind,
        "attack": label,
        "clean": score(clean).to_dict(),
        "robust": None if robust is None else score(robust).to_dict(),
    }


def paired(random: Tensor, mean: Tensor) -> dict[str, Any]:
    """Return McNemar's exact test of two networks that are right `[n]` on the same images."""
    from robust_nas.statistics.proportions import discordant

    only_random, only_mean = int((random & ~mean).sum()), int((mean & ~random).sum())
    return {"only_random": only_random, "only_mean": only_mean, "p": discordant(only_random, only_mean)}

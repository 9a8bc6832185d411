"""Measure how often simulated searches pass the tests of the verdict on a search, as docs/search-verdict.md shows.

Alphas under Adam follow noise, or a planted operation on every edge; `robust_nas/search/verdict/planted.py` says how.
About six CPU minutes for 1,000 searches a row:

    python scripts/simulate_search_verdict.py 1000
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from robust_nas.search.verdict.chance import Chance, agreement, agreement_by_chance
from robust_nas.search.verdict.derivation import allowed, derive
from robust_nas.search.verdict.last_epochs import kept_until_the_end
from robust_nas.search.verdict.margin import mean_margin
from robust_nas.search.verdict.planted import simulate
from robust_nas.search.verdict.trajectory import Trajectory
from robust_nas.spaces import load_space
from robust_nas.statistics.proportions import wilson

NAMES = ("edges", "shares", "margin", "last epochs", "edges and margin")
SLOW = 200  # searches of which the last epochs are tested, which takes ten times as long as a margin
NOISE, PLANTED = "noise", "planted"


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what is simulated, the space, and the options of the simulation."""
    yield NOISE, "dsara", {}
    yield NOISE, "dsara", {"epochs": 6}
    yield NOISE, "dsara", {"epochs": 50, "steps": 2}
    yield NOISE, "dsara", {"steps": 1, "epochs": 12}
    yield NOISE, "dsara", {"steps": 40, "epochs": 6}
    yield NOISE, "dsara", {"learning_rate": 3e-4}
    yield NOISE, "dsara", {"betas": (0.9, 0.999)}
    yield NOISE, "dsara", {"common": 0.5}
    yield NOISE, "dsara", {"common": 0.9}
    yield NOISE, "dsara", {"seeds": 4}
    yield NOISE, "nas-bench-201", {}
    yield PLANTED, "dsara", {"drift": 0.1}
    yield PLANTED, "dsara", {"drift": 0.2}
    yield PLANTED, "dsara", {"drift": 0.3}
    yield PLANTED, "dsara", {"drift": 0.5}
    yield PLANTED, "dsara", {"drift": 1.0}
    yield PLANTED, "nas-bench-201", {"drift": 0.5}


def passed(space_name: str, searches: int, options: dict[str, Any]) -> dict[str, float]:
    """Return the share of searches that pass each test."""
    space = load_space(space_name)
    options = {"seeds": 2, "steps": 6, "betas": (0.5, 0.999), **options}
    weights = simulate(space, searches=searches, **options)
    momentum, steps = options["betas"][0], options["steps"]
    observed = agreement(derive(weights[:, :, -1], space), space)
    draws = agreement_by_chance(space, options["seeds"])
    found: dict[str, list[bool]] = {name: [] for name in NAMES}
    for number, own in enumerate(weights):
        ways = [Trajectory(one, steps) for one in own]
        for name in ("edges", "shares"):
            value = float(getattr(observed, name)[number])
            found[name].append(Chance.of(value, getattr(draws, name)).exceeded)
        found["margin"].append(mean_margin(ways, allowed(space), momentum)[1].exceeded)
        if number < SLOW:
            found["last epochs"].append(kept_until_the_end(ways, space, momentum)[1].exceeded)
    found["edges and margin"] = list(np.logical_and(found["edges"], found["margin"]))
    return {name: float(np.mean(several)) for name, several in found.items()}


def main() -> None:
    """Print a table: the share of searches that pass, and for both tests the 95 % interval."""
    searches = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(
        f"| what ({searches} searches) | space | other than 2 seeds, 8 epochs of 6 steps | {' | '.join(NAMES)} |"
    )
    print("|---|---|---|" + "---|" * len(NAMES))
    for what, space, options in settings():
        found = passed(space, searches, options)
        shares = [f"{100 * found[name]:.1f} %" for name in NAMES]
        low, high = wilson(round(found[NAMES[-1]] * searches), searches)
        words = ", ".join(f"{key} {value}" for key, value in options.items()) or "-"
        print(
            f"| {what} | {space} | {words} | {' | '.join(shares)} ({100 * low:.1f}-{100 * high:.1f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()

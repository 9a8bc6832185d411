"""Training methods compared for the docs: Fashion-MNIST, 2,000 images, WRN-10-1, three seeds, the cascade.

    .venv/bin/python scripts/evidence_losses.py --plan             # core hours, nothing is trained
    .venv/bin/python scripts/evidence_losses.py --parts 4          # the next four trainings, a method and a seed each
    .venv/bin/python scripts/evidence_losses.py                    # all that is left
    .venv/bin/python scripts/evidence_losses.py --quick --out results/losses-quick    # minutes, not for the docs

It is `robust-nas compare` with the settings below, and its folder is what is committed: every training adds its outcome
(`trials/<id>/outcome.json`, a line of `journal.jsonl`) when it ends, and the tables are written again after every call.
A call goes on where another one ended or was killed, also on another machine that has the committed folder. Models are
not kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import robust_nas
from robust_nas.cli import common
from robust_nas.config import Count
from robust_nas.execution import Ended, LocalEngine, Task
from robust_nas.files import LOCK
from robust_nas.studies.run.folder import is_study, outcomes
from robust_nas.studies.run.plan import Plan, plan_tree
from robust_nas.studies.run.runner import plan_study, timed

OUT = Path("results/reference/losses")
METHODS = (
    "pgd-at", "natural", "trades", "mart", "iat", "j-sigr", "second-order", "n-fgsm", "free-at", "grad-align",
    "pgd-at+awp",
)  # fmt: skip
EQUAL_PASSES = (
    "pgd-at",
    "trades",
    "n-fgsm",
    "free-at",
    "grad-align",
)  # PGD-AT, and four with epochs of their own
SEEDS = 3
NETWORK = "wrn-10-1"
SETTINGS = (  # of the recipe `fashion`: Linf eps 0.1, batches of 64, cosine, the epoch chosen on the validation split
    "name=losses",
    "device=cpu",
    "threads=1",
    "data.limit=1500",
    "training.epochs=10",
    "training.ema=null",  # for all methods alike
    "training.validate_from=2",
    "training.validate_every=3",
    "training.validation_images=200",
    "evaluation.suite=cascade",
    "evaluation.images=200",
    "compare.metrics={images: 64}",
    "compare.keep_models=false",
    "compare.guard={max_hours: 200}",  # the parts are the guard; a busy machine is timed many times too slow
)
QUICK = (
    "data.limit=200",
    "training.epochs=2",
    "training.validate_from=0",
    "training.validate_every=1",
    "training.validation_images=40",
    "evaluation.images=32",
    "evaluation.findings=none",
    "compare.metrics={images: 16}",
)


class SomeTrials(LocalEngine):
    """The local engine, for the first `parts` of the trials that are left (None: all)."""

    parts: Count | None = None

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        """Run them."""
        return super().run(tasks[: self.parts], started)


def main() -> None:
    """Plans, then trains what is asked for and is not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="print the estimate and stop")
    parser.add_argument("--parts", type=int, help="at most so many trainings in this call")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script; needs --out")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="fewer or others; needs --out")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.out == OUT and (given.quick or given.methods != list(METHODS)):
        parser.error(f"--quick and --methods are not for {OUT}; name another folder with --out")
    equal = [name for name in EQUAL_PASSES if name in given.methods]
    settings = [*SETTINGS, *(QUICK if given.quick else ()), f"compare.equal_passes=[{', '.join(equal)}]"]
    config = robust_nas.load_comparison(
        "fashion", given.methods, settings, architecture=NETWORK, seeds=2 if given.quick else SEEDS
    )
    if given.plan:
        plan, context = plan_study(config)
        done = set(outcomes(given.out)[0]) if is_study(given.out) else set()
        show(plan, plan_tree(plan, timed(plan, context), 1), done)
        return
    if is_study(given.out):
        (given.out / LOCK).touch()  # a clone has none
    engine = SomeTrials(workers=given.workers, parts=given.parts)
    with common.progress(quiet=False) as report:
        folder = robust_nas.run_study(config, given.out, mode="resume", engine=engine, progress=report)
    print((folder / "comparison.csv").read_text())


def show(plan: Plan, tree: dict[str, Any], done: set[str]) -> None:
    """Print the core hours of every method, of all, and of what is left."""
    total = left = 0.0
    for point in tree["points"]:
        missing = [trial for trial in point["trials"] if trial not in done]
        total += point["seconds"] * len(point["trials"])
        left += point["seconds"] * len(missing)
        print(
            f"{point['name']:<24} {point['arm']:<26} {point['epochs']:>3} epochs, {point['passes']:>3} passes an image"
            f", {len(missing)} of {len(point['trials'])} left, {point['seconds']:.0f} core s each"
        )
    print(
        f"{total / 3600:.2f} core hours in all, {left / 3600:.2f} left; training, validation and all attacks at most"
    )
    for warning in plan.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()

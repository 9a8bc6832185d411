"""The cells did not collapse: not to skip connections, and not to one operation.

FAIL where more than half of a cell's operations pass their input on or are `none` (`spread.collapsed`): the known end
of weights that win by being easy to train through (DARTS+, Liang et al., 2019; P-DARTS, Chen et al., 2019). WARN where
one operation takes more than 3/4 of a cell, where no operation of a cell has parameters, and where a search of another
seed collapsed.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from robust_nas.operations import OPERATIONS
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence, SeedEvidence
from robust_nas.search.verdict.thresholds import ONE_OPERATION, SKIPS
from robust_nas.spaces.cell import Cell

REMEDY = (
    "let the weights train before the alphas move (search.warmup_epochs), limit the skips (search.max_skips), or use a "
    "smaller search.alphas.learning_rate"
)


class Collapse(SearchCheck):
    """The largest share of a cell that skips take."""

    title: ClassVar[str] = "collapse"
    allowed: ClassVar[str] = f"at most {SKIPS:g} of a cell"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["collapse"] = "collapse"

    def applies(self, evidence: SearchEvidence) -> bool:
        """Return whether the space has an operation that a cell should not collapse to, and another."""
        easy = [_is_easy(name) for name in evidence.space.operations]
        return bool(evidence.seeds) and not all(easy)

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return FAIL where a cell of the result collapsed, WARN where one nearly did, or another seed's did."""
        chosen = evidence.chosen
        cells = chosen.architecture.genotype
        value = max(_skips(cell) for cell in cells)
        if value > SKIPS:
            words = ", ".join(
                f"{_skips(cell):.0%} of the {cell.kind} cell" for cell in cells if _skips(cell) > SKIPS
            )
            text = f"skip connections (or none) are {words}"
            return self.finding(evidence, "FAIL", text, value, next_step=REMEDY)
        doubt = next((found for cell in cells if (found := _doubt(cell))), "") or _others(evidence, chosen)
        if doubt:
            return self.finding(evidence, "WARN", doubt, value, next_step=REMEDY)
        return self.finding(evidence, "PASS", f"skip connections are at most {value:.0%} of a cell", value)


def _is_easy(name: str) -> bool:
    operation = OPERATIONS.get(name)
    return operation.is_skip or not operation.connects


def _skips(cell: Cell) -> float:
    names = cell.operations()
    return sum(map(_is_easy, names)) / len(names)


def _doubt(cell: Cell) -> str:
    names = cell.operations()
    name, count = Counter(names).most_common(1)[0]
    if count > ONE_OPERATION * len(names):
        return f"{count} of the {len(names)} operations of the {cell.kind} cell are {name}"
    if all(OPERATIONS.get(one).cost(1, 1, 1, False).params == 0 for one in names):
        return f"no operation of the {cell.kind} cell has parameters"
    return ""


def _others(evidence: SearchEvidence, chosen: SeedEvidence) -> str:
    fallen = [
        one.seed
        for one in evidence.seeds
        if one is not chosen and max(map(_skips, one.architecture.genotype)) > SKIPS
    ]
    return f"the search of seed {fallen[0]}, which is not the result, collapsed to skips" if fallen else ""

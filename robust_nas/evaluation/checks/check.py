"""The protocol of sanity checks: what a check wants to look at, what it may cost, and what it finds.

A new check is a subclass with its formula and `run`, in a file of its own, and a line in `CHECKS`. A check reads the
rows and traces of the attacks, which is free, or makes passes of its own, which are counted and paid for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.verdict import Finding, Status
from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState


class SanityCheck(Method):
    """Base of all sanity checks. `title` names the finding (and the seed of the check's draws)."""

    title: ClassVar[str] = ""
    allowed: ClassVar[str] = ""  # the value that is a PASS, in words
    free: ClassVar[bool] = False  # whether it makes no passes; it is run in any case, on all images
    selection: ClassVar[Selection] = "all"  # the images that it wants, in their order:
    # all, those right as they are, or those right after all attacks
    most: ClassVar[int] = 64  # images that it gets
    share: ClassVar[float] = 1.0  # of the passes left that it may take

    def applies(self, state: EvaluationState) -> bool:
        """Return whether there is anything to check; a check that does not apply finds nothing."""
        return True

    def undefined(self, state: EvaluationState) -> str | None:
        """Return why the check cannot be run on this model and these images, a gap in the evidence; or None."""
        return None

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of one image, at most."""
        return 0

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the findings on the images at `indices`, and count the passes in `cost`."""
        raise NotImplementedError(f"{type(self).__name__} checks nothing")

    def finding(
        self,
        status: Status,
        text: str,
        value: float | None = None,
        images: int = 0,
        *,
        allowed: str | None = None,
    ) -> Finding:
        """Return a finding of this check; `allowed` is the class's unless it depends on the evaluation."""
        return Finding(
            name=self.title,
            status=status,
            text=text,
            value=value,
            images=images,
            allowed=self.allowed if allowed is None else allowed,
        )

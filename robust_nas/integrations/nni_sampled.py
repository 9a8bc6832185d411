"""NNI's multi-trial strategies as sampled strategies (extra `nni`): the base of `nni:random` and `nni:evolution`.

Every integer of a code is one choice of NNI's. A metric is the gain of the first objective, since NNI knows one number
a model; a network without gains, outside the constraints or outside the windows has none, and NNI passes it over. Where
NNI gives up, because it finds no network that it did not submit, random ones take their place (our choice), unknown to
it. Its experiments, training services and server are not used. A resumed search makes the same calls from its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from robust_nas.search import Candidate, Proposal, SampledSearch, SampledStrategy

if TYPE_CHECKING:
    from robust_nas.integrations.nni_proposals import AskTell


class NNISampled(SampledStrategy):
    """A strategy whose proposals are those of a multi-trial strategy of NNI's."""

    package: ClassVar[str | None] = "nni"

    @property
    def label(self) -> str:
        """Return the whole name."""
        return self.name

    def theirs(self, seed: int) -> Any:
        """Return NNI's strategy."""
        raise NotImplementedError(f"{type(self).__name__} has no strategy of NNI's")

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return what NNI's strategy submits. Raises `ConfigError` without NNI."""
        if not search.state:
            from robust_nas.integrations import nni  # noqa: F401 - refused where it is not installed
            from robust_nas.integrations.nni_proposals import AskTell

            search.state["theirs"] = AskTell(self.theirs(search.seed), search.encoding.sizes)
        theirs: AskTell = search.state["theirs"]
        codes = theirs.ask(search.batch, search.accepts)
        return [Proposal(code) for code in codes] or search.random_batch()

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """End the models with their metrics."""
        theirs: AskTell = search.state["theirs"]
        theirs.tell([None if one.gains is None or one.violation > 0 else one.gains[0] for one in candidates])

"""Optuna's samplers as sampled strategies (extra `optuna`): the base of `nsga2` and `tpe`.

Every integer of a code is one categorical parameter of an Optuna study in memory. Gains are maximised; a network
without gains (not accepted, or not scored) is a failed trial, which the samplers pass over. Constraints on measured
columns reach the sampler as the violation. After many batches without anything new random
networks are put in (our choice). The study is built again by the same calls where a search is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from robust_nas.errors import ConfigError
from robust_nas.search import Candidate, Proposal, SampledSearch, SampledStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

VIOLATION = "violation"
LARGEST = 1e300  # in the place of an infinite violation, which Optuna refuses


class OptunaStrategy(SampledStrategy):
    """A strategy whose proposals are an Optuna sampler's."""

    package: ClassVar[str | None] = "optuna"

    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        raise NotImplementedError(f"{type(self).__name__} has no sampler")

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return what the sampler suggests for a batch of trials. Raises `ConfigError` without Optuna."""
        with _quiet():
            study = search.state.get("study") or self._study(search)
            if search.stale:
                fresh = search.random_batch()
                if not fresh:
                    return []
                for proposal in fresh:
                    study.enqueue_trial({f"c{place}": value for place, value in enumerate(proposal.code)})
            trials = [study.ask() for _ in search.numbers()]
            search.state["trials"] = trials
            sizes = search.encoding.sizes
            codes = [
                tuple(trial.suggest_categorical(f"c{place}", range(size)) for place, size in enumerate(sizes))
                for trial in trials
            ]
        return [Proposal(code) for code in codes]

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Tell the study the gains of its trials."""
        from optuna.trial import TrialState

        study = search.state["study"]
        with _quiet():
            for trial, candidate in zip(
                search.state["trials"], candidates, strict=False
            ):  # the last batch is cut
                if search.goal.constraints:
                    trial.set_constraint(VIOLATION, min(candidate.violation, LARGEST))
                if candidate.gains is None:
                    study.tell(trial, state=TrialState.FAIL)
                else:
                    study.tell(trial, list(candidate.gains))

    def _study(self, search: SampledSearch) -> Any:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(
                f"strategy {self.label}: Optuna is not installed ({error}); pip install 'robust-nas[optuna]', "
                "or choose another strategy"
            ) from None
        search.state["study"] = optuna.create_study(
            directions=["maximize"] * len(search.goal.objectives), sampler=self.sampler(search.seed)
        )
        return search.state["study"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Optuna's messages inside, and its notes that an option of a sampler may change."""
    try:
        import optuna
    except ImportError:  # reported by who needs it
        yield
        return
    import warnings

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)

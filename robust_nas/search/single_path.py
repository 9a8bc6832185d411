"""Single-path one-shot search (after Guo et al., ECCV 2020): a supernet of paths, then evolution of its paths.

    w     <- SGD over random paths a_t:  L(w(a_t); x_t', y_t),  x_t' attacked, clean at first     (`ranking/paths.py`)
    score(a) = zero-cost(a) + (share of a reference sample with a higher CE(f_w(a)(x'), y), where the gate is fit)
    a*    =  the best score that evolution finds within the windows                               (`evolution.py`)

Only the operations of a path are computed: a step takes the memory of one network. Ours, not the paper's: adversarial
losses, a clean warm start, the average of the weights, regularised evolution, the sum with zero-cost, and the gate,
which leaves out the losses of a supernet that trained too little (`evaluators/supernet.py`). A third of the steps is
clean, and the defaults attack at half of the config's eps, as the prototype did with 4/255 of 8/255.

It is evolution with the evaluator `supernet`, under a name and with defaults of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from robust_nas.attacks import ThreatModel, inherited
from robust_nas.config import Count
from robust_nas.search.evaluators import EVALUATORS
from robust_nas.search.evaluators.evaluator import Evaluator
from robust_nas.search.evolution import Evolution
from robust_nas.search.strategy import Record

GENTLY = 0.5  # share of the config's eps
QUICK_ZERO_COST = {"cells_per_stage": 1, "draws": 1}  # less time than a path's losses; our choice


class SinglePath(Evolution):
    """A single-path supernet, trained adversarially, and the evolution of its paths."""

    moved: ClassVar[Mapping[str, str]] = {
        "samples": "evaluations",
        "attack": "evaluator.loss.attack and evaluator.score_attack",
        "batch_size": "evaluator.batch_size",
    }

    name: Literal["single-path"] = "single-path"  # type: ignore[assignment] # evolution under another name
    evaluations: Count = 60  # paths that are scored
    epochs: Count | None = None  # of the supernet; None: the evaluator's steps
    evaluator: Annotated[
        Evaluator,
        EVALUATORS.field(lambda kind: "weight" in kind.columns, "it has no supernet", default="supernet"),
    ] = Field(default_factory=dict, validate_default=True)  # read like a config's own

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_supernet(cls, values: Any) -> Any:
        """Give the evaluator the search's epochs and channels, and the config's threat model, where it says nothing."""
        own = values.get("evaluator", {}) if isinstance(values, Mapping) else None
        if not isinstance(own, Mapping):
            return values
        sizes = {key: values[key] for key in ("epochs", "channels") if values.get(key) is not None}
        if "steps" in own:
            sizes.pop("epochs", None)
        return {**values, "evaluator": {"zero_cost": QUICK_ZERO_COST, **_attacks(), **sizes, **own}}

    def result(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return what a sampled search found, and whether the supernet's losses were fit to choose by."""
        return {**super().result(records), "supernet_fit": all(bool(one["weight"]) for one in records)}


def _attacks() -> dict[str, Any]:
    """Return the keys of the supernet's loss and of the attack that scores, by the threat model of the config."""
    given = {key: value for key, value in inherited().items() if key in ThreatModel.model_fields}
    try:
        model = ThreatModel.model_validate(given)
    except ValidationError:  # none, or a mistake, which is reported at its own place
        return {}
    threat = {"norm": model.norm, "eps": GENTLY * model.eps, "bn": "batch"}
    return {
        "loss": {"name": "pgd-at", "attack": {"name": "fgsm-rs", **threat}},
        "score_attack": {"name": "fgsm", "keep": "last", **threat},
    }

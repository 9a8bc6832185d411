"""Comparisons of training methods, small enough to be run, and the networks of methods that are not for every one."""

from collections.abc import Sequence
from typing import Any

from robust_nas.attacks import ATTACKS
from robust_nas.spaces import Architecture, EnsembleArchitecture, MeanFieldArchitecture, MLPArchitecture
from robust_nas.studies.comparison import load_comparison
from robust_nas.studies.config import StudyConfig

NETWORK = MLPArchitecture(name="mlp", depth=1, width=16)
SETTINGS = (
    "data.limit=200",
    "data.validation=0.2",
    "data.augment={}",
    "training.epochs=2",
    "training.batch_size=32",
    "training.ema=null",
    "training.validate_from=0",
    "training.validate_every=1",
    "training.validation_attack.steps=2",
    "evaluation.suite=quick",
    "evaluation.findings=none",
    "evaluation.images=60",
    "compare.metrics={images: 20}",
    "compare.analysis={draws: 200}",
    "device=cpu",
)
DEEP = MLPArchitecture(name="deep", depth=4, width=24)  # 3 layers of 24 x 24
PARTICLES = EnsembleArchitecture(name="particles", member=DEEP, particles=3)
POSTERIOR = MeanFieldArchitecture(name="posterior", member=DEEP)
# Networks of methods that are not for every one.
OWN_NETWORK: dict[str, Architecture] = {"ensemble": PARTICLES, "ig-bnn": PARTICLES, "adv-bnn": POSTERIOR}


def fit_for_training() -> list[str]:
    """The attacks that a name alone means: a generator is known by its folder."""
    known = {name: ATTACKS.get(name) for name in ATTACKS.names()}
    return [
        name
        for name, attack in known.items()
        if attack.for_training and "generator" not in attack.model_fields
    ]


def comparison(*losses: str, changes: Sequence[str] = (), **options: Any) -> StudyConfig:
    given: dict[str, Any] = {"architecture": NETWORK, "seeds": 2, **options}
    return load_comparison("quickstart", losses, [*SETTINGS, *changes], **given)

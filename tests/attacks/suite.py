"""Every option value of the registry that the conformance suite runs, and what it does with them."""

import tempfile
from pathlib import Path
from typing import get_args

import pytest

from robust_nas.attacks import (
    APGD,
    FGSM,
    FGSMRS,
    NFGSM,
    OPT,
    PGD,
    ZOO,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    Noise,
    SecondOrder,
    SignOPT,
    Square,
    Transfer,
)

EPS = {"linf": 0.1, "l2": 1.0}
NORMS = ("linf", "l2")
PLACE = tempfile.TemporaryDirectory()  # of this process
SURROGATE = str(Path(PLACE.name).resolve() / "surrogate")  # the model folder that the transfer attacks name


def losses(attack):
    return get_args(attack.model_fields["loss"].annotation)


ATTACKS = {
    "fgsm-rs": FGSMRS(eps=EPS["linf"]),
    "fgsm-rs-best": FGSMRS(eps=EPS["linf"], keep="best"),
    "n-fgsm": NFGSM(eps=EPS["linf"], noise=2.0),
    "cw": CarliniWagner(steps=15, search_steps=2, learning_rate=0.1, weight=10.0),
    "cw-eps": CarliniWagner(eps=2.0, steps=15, search_steps=2, learning_rate=0.1, weight=10.0),
    "cw-confidence": CarliniWagner(steps=15, search_steps=2, learning_rate=0.1, weight=10.0, confidence=0.1),
    "pgd-restarts-last": PGD(eps=EPS["linf"], steps=2, restarts=3, keep="last"),
    "pgd-momentum": PGD(eps=EPS["l2"], norm="l2", steps=3, momentum=0.9),
    "pgd-eot": PGD(eps=EPS["linf"], steps=2, eot=2),
    "pgd-targets": PGD(eps=EPS["l2"], norm="l2", steps=2, loss="ce-targeted", targets=3, restarts=2),
    "second-order-saddle-free": SecondOrder(
        eps=EPS["linf"], steps=2, krylov=2, solver="saddle-free", loss="kl", restarts=2
    ),
    "zoo": ZOO(queries=100, coordinates=32, learning_rate=0.1),
    "zoo-newton-eps": ZOO(
        eps=4.0, queries=100, coordinates=16, solver="newton", weight=100.0, learning_rate=1.0
    ),
    "boundary": Boundary(queries=40),
    "boundary-eps": Boundary(eps=2.0, queries=40),
    "opt": OPT(queries=40, directions=5, estimates=2),
    "opt-eps": OPT(eps=2.0, queries=40, directions=5, estimates=2),
    "pgd-batch": PGD(eps=EPS["linf"], steps=2, bn="batch"),
    "pgd-dlr-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="dlr"),
    "pgd-kl-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="kl", keep="last"),
}
for _norm in NORMS:
    _common = {"eps": EPS[_norm], "norm": _norm}
    ATTACKS |= {
        f"fgsm-{_norm}": FGSM(**_common),
        f"pgd-last-{_norm}": PGD(steps=3, keep="last", **_common),
        f"pgd-restarts-{_norm}": PGD(steps=2, restarts=3, **_common),
        f"second-order-{_norm}": SecondOrder(steps=2, krylov=3, **_common),
        f"second-order-gmres-{_norm}": SecondOrder(steps=2, krylov=2, solver="gmres", keep="last", **_common),
        f"apgd-restarts-{_norm}": APGD(steps=4, restarts=2, **_common),
        f"deepfool-{_norm}": DeepFool(norm=_norm, steps=10),
        f"deepfool-eps-{_norm}": DeepFool(steps=10, candidates=3, **_common),
        f"square-{_norm}": Square(queries=20, **_common),
        f"square-restarts-{_norm}": Square(queries=6, restarts=3, **_common),
        f"hop-skip-jump-{_norm}": HopSkipJump(norm=_norm, queries=40, first_estimate=20),
        f"hop-skip-jump-eps-{_norm}": HopSkipJump(queries=40, first_estimate=20, **_common),
        f"sign-opt-{_norm}": SignOPT(norm=_norm, queries=40, directions=5, estimates=20),
        f"sign-opt-eps-{_norm}": SignOPT(queries=40, directions=5, estimates=20, **_common),
        f"noise-{_norm}": Noise(draws=4, **_common),
        f"autoattack-{_norm}": AutoAttack(attacks=("apgd-ce" if _norm == "linf" else "apgd-dlr",), **_common),
        f"transfer-{_norm}": Transfer(
            surrogates=(SURROGATE,), attack={"name": "pgd", "steps": 2, "loss": "margin"}, **_common
        ),
        **{f"pgd-{loss}-{_norm}": PGD(steps=3, loss=loss, **_common) for loss in losses(PGD)},
        **{f"apgd-{loss}-{_norm}": APGD(steps=6, loss=loss, **_common) for loss in losses(APGD)},
    }
ATTACKS["transfer-two"] = Transfer(
    eps=EPS["linf"], surrogates=(SURROGATE, SURROGATE), attack={"name": "apgd", "steps": 2, "fold": False}
)
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
best_of_all = pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS.values() if attack.returns_best],
    ids=[name for name, attack in ATTACKS.items() if attack.returns_best],
)


def is_random(attack):
    """Whether the draws of the generator show in the images: plain gradients and starts have none."""
    return not isinstance(attack, FGSM | CarliniWagner | DeepFool)


def has_bf16(attack):
    """Whether its candidates may be made in bf16."""
    return "bf16" in get_args(type(attack).model_fields["precision"].annotation)


def can_fold(attack):
    """Whether it may work on the folded copy."""
    return type(attack).model_fields["fold"].annotation is bool


def changed(attack, **values):
    """The attack with other options, of the inner attack too."""
    tree = attack.model_dump()
    if isinstance(attack, Transfer):
        tree["attack"] |= {key: value for key, value in values.items() if key in ("eps", "norm")}
    return type(attack).model_validate(tree | values)

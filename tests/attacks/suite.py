"""Every option value of the registry that the conformance suite runs, and what it does with them."""

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from attacked import CLASSES, SHAPE, batch, generator

from robust_nas.attacks import (
    AIGAN,
    APGD,
    FGSM,
    FGSMRS,
    FMN,
    NFGSM,
    OPT,
    PGD,
    ZOO,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    Joint,
    LatentBoundary,
    Noise,
    Saved,
    SecondOrder,
    SignOPT,
    Square,
    Transfer,
    Unaware,
)
from robust_nas.attacks.adversarial_set import AdversarialSet, write_set
from robust_nas.nets.build import seeded
from robust_nas.nets.generator_folder import GeneratorDescription, Victim, save_generator

EPS = {"linf": 0.1, "l2": 1.0, "l1": 4.0}
NORMS = ("linf", "l2")  # that most attacks know
PLACE = tempfile.TemporaryDirectory()  # of this process
LADDER = str(Path(PLACE.name).resolve() / "ladder")  # LADDER's parts, fitted to that model
SURROGATE = str(Path(PLACE.name).resolve() / "surrogate")  # the model folder that the transfer attacks name
SAVED = str(Path(PLACE.name).resolve() / "set.npz")  # the saved images of the attack `saved`


def saved_set():
    """Write a set that holds the images of the suites, each moved by at most 0.1 in Linf and .5 in L2 and L1."""
    images, _ = batch(count=24)
    clean = torch.cat([images, (255 * images).round() / 255])
    noise = torch.randn(clean.shape, generator=generator(7))
    moved = (clean + 0.5 * noise / noise.flatten(1).norm(p=1, dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
    meta = {"attack": {"name": "noise"}, "label": "noise-1", "threat_model": {"norm": "l1", "eps": 0.5}}
    meta |= {"victim": "0" * 64, "data": {}, "seed": 0, "versions": {}}
    labels = np.zeros(len(clean), np.int64)
    write_set(
        Path(SAVED), AdversarialSet(images=moved.numpy(), clean=clean.numpy(), labels=labels, meta=meta)
    )


saved_set()


def made_generator(folder, norm="linf", eps=None, shape=SHAPE, classes=CLASSES, victim="none", seed=0):
    """Write a generator of random weights that was trained for nobody, or for that digest; return its folder."""
    description = GeneratorDescription(
        norm=norm,
        eps=EPS[norm] if eps is None else eps,
        input_shape=shape,
        class_names=tuple(f"class {index}" for index in range(classes)),
        victim=Victim(name="nobody", digest=victim),
    )
    with seeded(seed):
        state = description.build().state_dict()
    save_generator(Path(folder), state, description)
    return str(folder)


GENERATORS = {norm: made_generator(Path(PLACE.name).resolve() / f"generator-{norm}", norm) for norm in NORMS}


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
        eps=4.0,
        queries=100,
        coordinates=16,
        solver="newton",
        weight=100.0,
        learning_rate=1.0,
        h=0.2,  # smaller ones are lost in rounding
    ),
    "boundary": Boundary(queries=40),
    "boundary-eps": Boundary(eps=2.0, queries=40),
    "opt": OPT(queries=40, directions=5, estimates=2),
    "opt-eps": OPT(eps=2.0, queries=40, directions=5, estimates=2),
    "pgd-batch": PGD(eps=EPS["linf"], steps=2, bn="batch"),
    "pgd-dlr-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="dlr"),
    "pgd-kl-batch": PGD(eps=EPS["linf"], steps=2, bn="batch", loss="kl", keep="last"),
}
for _norm in (*NORMS, "l1"):
    _common = {"eps": EPS[_norm], "norm": _norm}
    ATTACKS |= {
        f"fmn-{_norm}": FMN(norm=_norm, steps=8),
        f"fmn-eps-{_norm}": FMN(steps=8, **{**_common, "eps": 2 * EPS[_norm]}),
        f"unaware-{_norm}": Unaware(attack={"name": "apgd", "steps": 3}, undefended="attack", **_common),
        f"saved-{_norm}": Saved(file=SAVED, unknown="keep", **_common),
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
        f"ladder-{_norm}": LatentBoundary(
            folder=LADDER, transfer=True, norm=_norm, targets=2, steps=3, halvings=1
        ),
        f"hop-skip-jump-{_norm}": HopSkipJump(norm=_norm, queries=40, first_estimate=20),
        f"hop-skip-jump-eps-{_norm}": HopSkipJump(queries=40, first_estimate=20, **_common),
        f"sign-opt-{_norm}": SignOPT(norm=_norm, queries=40, directions=5, estimates=20),
        f"sign-opt-eps-{_norm}": SignOPT(queries=40, directions=5, estimates=20, **_common),
        f"joint-{_norm}": Joint(steps=3, rounds=3, **_common),
        f"joint-ce-{_norm}": Joint(steps=4, rounds=2, loss="ce", **_common),
        f"noise-{_norm}": Noise(draws=4, **_common),
        f"ai-gan-{_norm}": AIGAN(generator=GENERATORS[_norm], transfer=True, **_common),
        f"autoattack-{_norm}": AutoAttack(attacks=("apgd-ce" if _norm == "linf" else "apgd-dlr",), **_common),
        f"transfer-{_norm}": Transfer(
            surrogates=(SURROGATE,), attack={"name": "pgd", "steps": 2, "loss": "margin"}, **_common
        ),
    }
# A loss knows no norm, so each has one of the two: the other one for the other family.
for _number, _loss in enumerate(losses(PGD)):
    _norm = NORMS[_number % 2]
    ATTACKS[f"pgd-{_loss}-{_norm}"] = PGD(steps=3, loss=_loss, eps=EPS[_norm], norm=_norm)
for _loss in losses(APGD):
    _norm = NORMS[(losses(PGD).index(_loss) + 1) % 2]
    ATTACKS[f"apgd-{_loss}-{_norm}"] = APGD(steps=6, loss=_loss, eps=EPS[_norm], norm=_norm)
_common = {"eps": EPS["l1"], "norm": "l1"}
ATTACKS |= {
    "noise-l1": Noise(draws=4, **_common),
    "autoattack-l1": AutoAttack(attacks=("apgd-ce",), **_common),
    "apgd-restarts-l1": APGD(steps=5, restarts=2, **_common),
    "apgd-one-ball-l1": APGD(steps=2, **_common),
    "apgd-dlr-targeted-l1": APGD(steps=5, loss="dlr-targeted", targets=2, **_common),
}
ATTACKS["transfer-two-l1"] = Transfer(
    surrogates=(SURROGATE, SURROGATE), attack={"name": "apgd", "steps": 2, "fold": False}, **_common
)
ATTACKS["ai-gan-random"] = AIGAN(
    eps=EPS["linf"], generator=GENERATORS["linf"], transfer=True, targets="random"
)
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
best_of_all = pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS.values() if attack.returns_best],
    ids=[name for name, attack in ATTACKS.items() if attack.returns_best],
)


def is_random(attack):
    """Whether the draws of the generator show in the images: plain gradients and starts have none."""
    if isinstance(attack, AIGAN):
        return attack.targets == "random"
    return not isinstance(attack, FGSM | CarliniWagner | DeepFool | FMN | LatentBoundary | Saved)


def has_bf16(attack):
    """Whether its candidates may be made in bf16."""
    return "bf16" in get_args(type(attack).model_fields["precision"].annotation)


def can_fold(attack):
    """Whether it may work on the folded copy."""
    return type(attack).model_fields["fold"].annotation is bool


def changed(attack, **values):
    """The attack with other options, of the inner attack too."""
    tree = attack.model_dump()
    if isinstance(attack, AIGAN) and "eps" in values:
        tree["share"] = values["eps"] / attack.eps  # the generator is scaled to it
    if isinstance(attack, Transfer | Unaware):
        tree["attack"] |= {key: value for key, value in values.items() if key in ("eps", "norm")}
    return type(attack).model_validate(tree | values)

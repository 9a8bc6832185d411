"""The findings that make passes of their own: sanity tests after Carlini et al. (2019) and Pintor et al. (2022).

Each function gives a `Probe`: what it needs per image, and what it makes of the first images that it is given.
A probe that tries to break survivors counts those that only it broke: the suite had missed them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_nas.attacks import APGD, FGSM, PGD, Attack, Noise, Square, Transfer
from robust_nas.attacks.engine import opened
from robust_nas.attacks.losses import ce
from robust_nas.evaluation.measure import Judged, judge
from robust_nas.evaluation.options import AutoAttack
from robust_nas.evaluation.report import Finding, Status
from robust_nas.evaluation.seeds import generator_of, seed_of
from robust_nas.evaluation.state import Progressed

QUERIES = 500  # of Square, per survivor
SQUARE = "white box at least as strong as Square"
EFFORT = 32  # survivors that the doubled attack gets: it is the dearest probe
GREY = 0.5  # Linf: within it every image can become one and the same grey


class Spent:
    """Passes that a probe has made."""

    def __init__(self) -> None:
        self.passes = 0


Made = tuple[list[Finding], list[dict[str, Any]]]  # findings, and points of the eps curve


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One check: on which images it may run, what it costs, and how it is run."""

    name: str
    images: Tensor  # indices into the order of the evaluation, the first of which it gets
    cost: int  # passes per image
    share: float  # of the passes left that it may take
    allowed: str
    run: Callable[[Tensor, Spent], Made]


def attempt(
    state: Progressed, attack: Attack, indices: Tensor, spent: Spent, name: str
) -> tuple[Judged, Tensor]:
    """What the deployed rule says of the images after an attack, and the adversarial images; passes are counted."""
    rights, images = [], []
    for number, part in enumerate(torch.split(indices, state.options.batch_size)):
        x, y = state.batch(part)
        result = attack.run(
            state.predictor, x, y, generator_of(state.device, state.seed, "finding", name, number)
        )
        judged = judge(
            state.predictor,
            result.images,
            y,
            draws=state.options.deployed.draws,
            seed=seed_of(state.seed, "judge finding", name, number),
        )
        spent.passes += result.forwards + result.backwards + judged.forwards
        rights.append(judged)
        images.append(result.images.cpu())
    joined = Judged(
        right=torch.cat([judged.right for judged in rights]).cpu(),
        draws=torch.cat([judged.draws for judged in rights], dim=1).cpu(),
        logits=torch.cat([judged.logits for judged in rights]).cpu(),
        forwards=sum(judged.forwards for judged in rights),
    )
    return joined, torch.cat(images)


def judging_passes(state: Progressed) -> int:
    """Passes of one image's judgement, with the control of a random rule."""
    samples = state.predictor.samples
    return 1 if samples is None else 2 * samples * state.options.deployed.draws


def eot_of(state: Progressed) -> int:
    """Passes per gradient that a probe takes: one, or the declared number of a random model."""
    return state.options.deployed.eot if state.predictor.random else 1


def _graded(count: int, tested: int, worst: float) -> Status:
    """PASS for none, FAIL for more than a share of those tested (and more than one), WARN between."""
    return "PASS" if not count else "FAIL" if count > max(1, worst * tested) else "WARN"


def deterministic(state: Progressed, images: Tensor) -> Probe:
    """Two passes of the same images."""
    allowed = "at most 1e-4"

    def run(indices: Tensor, spent: Spent) -> Made:
        x, y = state.batch(indices)
        module = type(state.predictor)(state.predictor.module, abstains=state.predictor.abstains)
        seeds = (seed_of(state.seed, "deterministic", number) for number in (0, 1))
        first, second = (judge(module, x, y, seed=seed).logits for seed in seeds)
        spent.passes += 2 * len(x)
        difference = (first - second).abs().max() / first.abs().max().clamp_min(1e-12)
        moved = float(difference.nan_to_num(0.0))
        varies = moved > 1e-4
        declared = state.predictor.random
        text = "two passes gave the same outputs"
        if varies:
            text = "outputs vary from pass to pass"
            text += (
                ", as declared"
                if declared
                else "; declare it (deployed.samples), so that it is attacked through its randomness"
            )
        elif declared:
            text = "declared random, but two passes gave the same outputs"
        status: Status = "PASS" if varies == declared else "WARN" if declared else "FAIL"
        return [
            Finding(
                name="deterministic forward",
                status=status,
                value=moved,
                allowed="declared random" if declared else allowed,
                images=len(x),
                text=text,
            )
        ], []

    return Probe(name="deterministic forward", images=images, cost=2, share=1.0, allowed=allowed, run=run)


def zero_gradients(state: Progressed, images: Tensor) -> Probe:
    """The share of images on which the cross-entropy has no gradient at all, in the model as it is."""
    name, allowed = "zero gradients", "0 of the images"

    def run(indices: Tensor, spent: Spent) -> Made:
        x, y = state.batch(indices)
        # The cost of any attack of the family: its target gives the gradient, its step is not taken.
        probe = FGSM(
            norm=state.options.threat_model.norm,
            eps=state.options.threat_model.eps,
            fold=False,
            eot=eot_of(state),
        )
        generator = generator_of(state.device, state.seed, "finding", name)
        with opened(probe, state.predictor, x, y, generator) as target:
            _, _, gradient = target.gradient(target.images, lambda logits: ce(logits, target.labels))
            spent.passes += target.forwards + target.backwards
        flat = gradient.flatten(1)
        dead = ((flat == 0) | ~flat.isfinite()).all(1)
        share = float(dead.float().mean())
        return [
            Finding(
                name=name,
                status="PASS" if share == 0 else "FAIL" if share > 0.1 else "WARN",
                value=share,
                allowed=allowed,
                images=len(x),
                text=f"{int(dead.sum())} of {len(x)} images have no input gradient of the cross-entropy: saturated, "
                "quantised or detached; gradient attacks are blind there"
                if share
                else "the cross-entropy has an input gradient on every image",
            )
        ], []

    return Probe(name=name, images=images, cost=2 * eot_of(state), share=1.0, allowed=allowed, run=run)


def _flips(state: Progressed, indices: Tensor, spent: Spent, name: str) -> int:
    """How many images a random rule gets wrong in fresh draws without any attack; 0 for a deterministic one."""
    if not state.predictor.random:
        return 0
    x, y = state.batch(indices)
    seed = seed_of(state.seed, "judge control", name)
    judged = judge(state.predictor, x, y, draws=state.options.deployed.draws, seed=seed)
    spent.passes += judged.forwards
    return int((~judged.right).sum())


def _breaker(
    state: Progressed,
    images: Tensor,
    attack: Attack,
    *,
    name: str,
    cost: int,
    share: float,
    worst: float,
    missed: str,
    fine: str,
) -> Probe:
    """A probe that attacks survivors and counts what it breaks."""
    allowed = "0 broken"

    def run(indices: Tensor, spent: Spent) -> Made:
        judged, _ = attempt(state, attack, indices, spent, name)
        count = max(0, int((~judged.right).sum()) - _flips(state, indices, spent, name))
        text = f"{attack.label} broke {count} of {len(indices)} survivors: {missed}" if count else fine
        status = _graded(count, len(indices), worst)
        if state.predictor.random and status == "FAIL":
            status = "WARN"  # fresh draws of hard images may flip by themselves
        return [
            Finding(
                name=name,
                status=status,
                value=count,
                allowed=allowed,
                images=len(indices),
                text=text,
            )
        ], []

    return Probe(name=name, images=images, cost=cost, share=share, allowed=allowed, run=run)


def limits(state: Progressed) -> dict[str, Any]:
    """Norm and eps of the threat model, for the attack of a probe."""
    return {"norm": state.options.threat_model.norm, "eps": state.options.threat_model.eps}


def fgsm(state: Progressed, survivors: Tensor) -> Probe:
    """A single step must not break what the suite did not."""
    return _breaker(
        state,
        survivors,
        FGSM(**limits(state), eot=eot_of(state)),
        name="iterative at least as strong as FGSM",
        cost=3 * eot_of(state) + judging_passes(state),
        share=1.0,
        worst=0.02,
        missed="the iterative attacks are weaker than one step",
        fine="no survivor falls to a single step",
    )


def noise(state: Progressed, survivors: Tensor) -> Probe:
    """Nor must random noise."""
    return _breaker(
        state,
        survivors,
        Noise(**limits(state), draws=10, eot=eot_of(state)),
        name="white box at least as strong as noise",
        cost=11 * eot_of(state) + judging_passes(state),
        share=0.5,
        worst=0.02,
        missed="random noise does what the attacks did not",
        fine="no survivor falls to random noise",
    )


def strongest(state: Progressed) -> PGD | APGD:
    """The suite's last iterative attack without targets, or APGD-CE where it has none of ours."""
    own = [
        step.attack
        for step in state.steps
        if isinstance(step.attack, PGD | APGD) and not step.attack.loss.endswith("-targeted")
    ]
    if own:
        return own[-1]
    return APGD(**limits(state), eot=eot_of(state))


def more_effort(state: Progressed, survivors: Tensor) -> Probe:
    """The suite's strongest untargeted attack again with twice the steps and twice the starts."""
    attack = strongest(state)
    changes: dict[str, Any] = {"steps": 2 * attack.steps, "restarts": 2 * attack.restarts, "keep": "best"}
    if isinstance(attack, PGD):
        changes |= {"step_size": attack.step, "random_start": True}
    doubled = attack.model_copy(update=changes)
    return _breaker(
        state,
        survivors[:EFFORT],
        doubled,
        name="doubling steps and restarts changes nothing",
        cost=doubled.restarts * (2 * doubled.steps + 1) * doubled.eot + 1 + judging_passes(state),
        share=0.5,
        worst=0.05,
        missed=f"{attack.label} had not converged",
        fine=f"{attack.label} with {doubled.steps} steps from {doubled.restarts} starts breaks no survivor",
    )


def transfer(state: Progressed, survivors: Tensor) -> Probe | None:
    """Attacks made on the surrogates, where there are any, and no attack of the suite was of that kind."""
    folders = state.options.surrogates
    if not folders or any(isinstance(step.attack, Transfer) for step in state.steps):
        return None
    attack = Transfer(**limits(state), surrogates=folders)
    return _breaker(
        state,
        survivors,
        attack,
        name="white box at least as strong as transfer",
        cost=attack.passes.total + judging_passes(state),
        share=0.5,
        worst=0.05,
        missed="attacks made on other models do what the white box did not",
        fine=f"no survivor falls to attacks made on {len(folders)} other models",
    )


def square(state: Progressed, survivors: Tensor) -> Probe | None:
    """Square with 500 queries on at most 64 survivors, where the suite has no Square of its own."""
    for step in state.steps:
        if isinstance(step.attack, Square) or (
            isinstance(step.attack, AutoAttack) and "square" in step.attack.names
        ):
            return None
    attack = Square(**limits(state), queries=QUERIES, eot=eot_of(state))
    height, width = state.pixels.shape[2:]
    if min(height, width) < attack.least_side:
        text = f"Square in {attack.norm} is not defined for images of {height} x {width} pixels"
        finding = Finding(name=SQUARE, status="NOT RUN", text=text, allowed="0 survivors broken")
        return Probe(
            name=SQUARE,
            images=survivors,
            cost=1,
            share=1.0,
            allowed="",
            run=lambda indices, spent: ([finding], []),
        )
    return _breaker(
        state,
        survivors,
        attack,
        name=SQUARE,
        cost=(QUERIES + 1) * eot_of(state) + judging_passes(state),
        share=1.0,
        worst=0.05,
        missed="a gradient-free attack does what the white box did not; run the suite autoattack",
        fine=f"no survivor falls to Square with {QUERIES} queries",
    )

"""The threat model: what an attacker may do. A config names it once, and every attack in it inherits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from pydantic import field_validator, model_validator

from robust_nas.attacks.norms import Norm
from robust_nas.config import NonNegative, Number, Options

_INHERITED: ContextVar[Mapping[str, Any] | None] = ContextVar("robust_nas_threat_model", default=None)


class ThreatModel(Options):
    """What the attacker may do: perturb every image by at most eps in the norm, inside the box."""

    norm: Norm = "linf"  # that bounds a perturbation
    eps: NonNegative  # largest perturbation on the 0..1 scale, such as 8/255
    box: tuple[Number, Number] = (0.0, 1.0)  # least and largest pixel

    @field_validator("box")
    @classmethod
    def _images_lie_in_it(cls, box: tuple[float, float]) -> tuple[float, float]:
        if box != (0.0, 1.0):
            raise ValueError("images lie in 0..1 here; another range belongs into the model's first layer")
        return box

    @model_validator(mode="after")
    def _within_the_box(self) -> Self:
        refuse_beyond_images(self.norm, self.eps)
        return self


def refuse_beyond_images(norm: Norm, eps: float | None) -> None:
    """Raise `ValueError` for an eps that is no distance of two images: on the scale 0..255, not 0..1."""
    if norm == "linf" and eps is not None and eps > 1:
        hint = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ValueError(f"eps is {eps:.6g} in linf, but images lie in 0..1{hint}")


def with_limits(inner: object, outer: Mapping[str, Any]) -> object:
    """Return an attack within another one: plain keys get the outer one's norm and eps; a value stays as it is."""
    if not isinstance(inner, Mapping):
        return inner
    return {**{key: outer[key] for key in ("norm", "eps") if key in outer}, **inner}


def refuse_other_limits(inner: Any, outer: Any, called: str) -> None:
    """Raise `ValueError` for an attack within another one that has another norm or eps."""
    for key in ("norm", "eps"):
        got, wanted = getattr(inner, key), getattr(outer, key)
        if got != wanted:
            raise ValueError(f"attack has {key} {got!r}, {called} {wanted!r}; they must be the same")


@contextmanager
def inherit(threat_model: object, surrogates: object = ()) -> Iterator[None]:
    """Give norm and eps of a threat model (a value, or its keys) to every attack that is read inside.

    `surrogates`, where there are any, go to every attack that takes model folders to transfer from.
    What an attack's own keys say has precedence; anything that is no threat model gives nothing.
    """
    if isinstance(threat_model, ThreatModel):
        threat_model = {"norm": threat_model.norm, "eps": threat_model.eps}
    given = _INHERITED.get() or {}
    if isinstance(threat_model, Mapping):
        given = {key: threat_model[key] for key in ("norm", "eps") if key in threat_model}
    if surrogates:
        given = {**given, "surrogates": surrogates}
    token = _INHERITED.set(given)
    try:
        yield
    finally:
        _INHERITED.reset(token)


def inherited() -> Mapping[str, Any]:
    """Return what attacks inherit from the config that is being read; empty where it has nothing."""
    return _INHERITED.get() or {}

"""Mean-field Gaussian posteriors over the weights of a network, as Adv-BNN has them (Liu et al., ICLR 2019).

    w = mu + sigma * e,   sigma = softplus(rho),   e ~ N(0, I), fresh in every forward pass
    p(x) = 1/S sum_s softmax f(x; w_s)             S = `samples`

Every trained tensor has a posterior but scale and shift of batch norms (our choice). `initial_sigma` is the sigma at
the start, 0.08 to 0.1 in the released code of Adv-BNN; S = 16 is our choice.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from robust_nas.config import Count, Positive, check
from robust_nas.errors import ArchitectureError
from robust_nas.operations.cost import Cost
from robust_nas.spaces.architecture import InputShape, Json
from robust_nas.spaces.families import known_architecture
from robust_nas.spaces.wrapped import WrappedArchitecture

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?"
_NAME = re.compile(rf"mean-field(?:-samples-([0-9]{{1,9}}))?(?:-sigma-({_NUMBER}))?\.(.+)")


class MeanFieldArchitecture(WrappedArchitecture):
    """A network with a Gaussian posterior over its weights: its member's architecture, and the passes of an answer."""

    called: ClassVar[str] = "a mean-field network"
    network: ClassVar[str] = "robust_nas.nets.mean_field:MeanFieldNetwork"
    named_as: ClassVar[str] = "mean-field.MEMBER, such as mean-field.wrn-10-1"
    has_posterior: ClassVar[bool] = True

    type: Literal["mean-field"] = "mean-field"
    samples: Count = 16  # passes of an answer
    initial_sigma: Positive = 0.08  # standard deviation of every weight at the start

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the network of a name such as `mean-field.wrn-10-1` or `mean-field-samples-8.arnas`, or None.

        Raises `ArchitectureError` for numbers that none has, and for a member that is of such a family itself.
        """
        found = _NAME.fullmatch(text)
        member = known_architecture(found[3]) if found else None
        if found is None or member is None:
            return None
        tree: Json = {"name": text, "member": member}
        if found[1]:
            tree["samples"] = int(found[1])
        if found[2]:
            tree["initial_sigma"] = float(found[2])
        return check(cls, tree, repr(text), ArchitectureError)

    @property
    def prefix(self) -> str:
        """Return `mean-field`, and what is not default: `mean-field-samples-8-sigma-0.1`."""
        fields = type(self).model_fields
        samples = "" if self.samples == fields["samples"].default else f"-samples-{self.samples}"
        usual = self.initial_sigma == fields["initial_sigma"].default
        return f"mean-field{samples}" + ("" if usual else f"-sigma-{self.initial_sigma!r}")

    @property
    def inference_samples(self) -> int:
        """Return the draws of the weights for an answer."""
        return self.samples

    def describe(self) -> str:
        """Return the size in words."""
        return f"a Gaussian posterior, {self.samples} draws for an answer, over {self.member.describe()}"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the member's module and arguments, the draws of an answer, and the sigma at the start."""
        own = {"samples": self.samples, "initial_sigma": self.initial_sigma}
        return {**super().arguments(input_shape), **own}

    def cost(self, member: Cost, without_norms: Cost) -> Cost:
        """Return mu and rho of every weight with the rest, and the MACs of one answer: those of `samples` passes.

        An operation of the user's own whose batch norms are not counted by `operations.cost.batch_norm` has too many.
        """
        return Cost(member.params + without_norms.params, self.samples * member.macs)

    def factors(self) -> dict[str, float | str]:
        """Return the passes of an answer, the sigma at the start, and the member's factors."""
        own = {"passes": self.samples, "initial_sigma": self.initial_sigma}
        return {**own, **self.member.factors()}

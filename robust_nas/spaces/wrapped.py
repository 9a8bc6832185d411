"""Architectures whose network is made of networks of another architecture, the member: what these families share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from robust_nas.operations.cost import Cost, Part, norms_left_out
from robust_nas.spaces.architecture import Architecture, InputShape, Json
from robust_nas.spaces.families import MemberArchitecture
from robust_nas.spaces.layout import MAX_NAME


class WrappedArchitecture(Architecture):
    """Base of these families. Sizes, operations and activations are the member's; `prefix` and `cost` are their own."""

    wraps: ClassVar[bool] = True

    member: MemberArchitecture  # architecture of the network inside

    @property
    def prefix(self) -> str:
        """Return what precedes the member's name in a name, such as `ensemble-5`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its names begin with")

    def cost(self, member: Cost, without_norms: Cost) -> Cost:
        """Return the cost of a part from the member's: all of it, and all but scale and shift of batch norms."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it costs")

    def called_like(self, name: str) -> str:
        """Return the name of the network with this member's name, cut at the length that a name may have."""
        return f"{self.prefix}.{name}"[:MAX_NAME]

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the module of the member and its arguments."""
        return {"member": self.member.network, "arguments": self.member.arguments(input_shape)}

    def networks_used(self) -> frozenset[str]:
        """Return the module of the member."""
        return frozenset([self.member.network])

    def operations_used(self) -> frozenset[str]:
        """Return the member's."""
        return self.member.operations_used()

    def activations_used(self) -> frozenset[str]:
        """Return the member's."""
        return self.member.activations_used()

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield the parts of the member, each with its cost in the whole network."""
        whole = list(self.member.parts(input_shape, classes))
        with norms_left_out():
            without = list(self.member.parts(input_shape, classes))
        for part, bare in zip(whole, without, strict=True):
            yield Part(part.name, self.cost(part.cost, bare.cost))

    def nameless(self) -> Json:
        """Return the tree without its own name and the member's."""
        return {**super().nameless(), "member": self.member.nameless()}

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return the prefix and the member's canonical name."""
        content = self.member.nameless()
        known = next((name for name, tree in shipped.items() if tree == content), None)
        return f"{self.prefix}.{known or self.member.content_name(shipped)}"

    @property
    def total_depth(self) -> int:
        """Return the member's."""
        return self.member.total_depth

    @property
    def total_width(self) -> int:
        """Return the member's."""
        return self.member.total_width

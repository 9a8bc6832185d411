"""The protocol of architecture families: what every architecture is, and what other code may ask of it.

An architecture is the small, frozen, hashable value that a search returns and a network is built from. It is complete,
and carries neither weights nor recipe. A new family is a subclass here with its options and costs, a torch module that
is made from its `arguments`, and a line in `FAMILIES`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

from robust_nas.config import Options, check, to_dict, to_yaml
from robust_nas.errors import ArchitectureError
from robust_nas.operations import ACTIVATIONS
from robust_nas.operations.cost import Cost, Part
from robust_nas.spaces.layout import Name
from robust_nas.user_code import is_code, names_by_content

if TYPE_CHECKING:
    from torch import nn

InputShape = tuple[int, int, int]  # channels, height, width
Json = dict[str, Any]
NetworkClass: TypeAlias = "type[nn.Module]"


class StageSizes(NamedTuple):
    """Blocks and channels of every stage."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]


class Architecture(Options):
    """Base of all architectures. `type` names the family; a subclass sets its default to the name in `FAMILIES`."""

    called: ClassVar[str] = "a network"  # one of the family, in a sentence
    network: ClassVar[str] = ""  # its torch module as `package.module:Class`
    named_as: ClassVar[str] = ""  # the names that `named` reads, in words
    has_cells: ClassVar[bool] = False  # whether it is a `CellArchitecture`, made of a genotype
    supports_auxiliary_head: ClassVar[bool] = False
    supports_drop_path: ClassVar[bool] = False
    learns_by: ClassVar[str] = ""  # the verb that makes its weights, where a training does not
    supports_mixing: ClassVar[bool] = False  # whether its network has `mixing_points`
    wraps: ClassVar[bool] = False  # whether its network is made of networks of another architecture, `member`
    has_particles: ClassVar[bool] = False  # whether its network has `members` and `member_logits`
    has_posterior: ClassVar[bool] = False  # whether its network has `posterior_mean` and `kl`

    schema_version: Literal[1] = 1  # of the file's format
    type: str = ""  # family of architectures
    name: Name  # of the architecture

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the architecture that a name of the family's own means, such as `wrn-28-10`; None for other names.

        Raises `ArchitectureError` for a name of the family's form that means no network.
        """
        return None

    @classmethod
    def network_class(cls) -> NetworkClass:
        """Return the torch module of the family, which imports torch.

        It is called with `classes`, `mean`, `std` and the keywords of `arguments`.
        """
        found: NetworkClass = by_name(cls.network)
        return found

    def arguments(self, input_shape: InputShape) -> Json:
        """Return keyword arguments of the torch module for images of `input_shape` = (C, H, W).

        They are literals (numbers, strings, tuples, lists), because the plain-Python export writes them into its file.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its network is made of")

    def operations_used(self) -> frozenset[str]:
        """Return the names under which the network asks for operations, which the plain-Python export carries."""
        return frozenset()

    def activations_used(self) -> frozenset[str]:
        """Return the same of activations."""
        return frozenset()

    def networks_used(self) -> frozenset[str]:
        """Return the modules, as `package.module:Class`, that its network is made of and asks for by name."""
        return frozenset()

    @property
    def inference_samples(self) -> int | None:
        """Return the random forward passes whose mean softmax is an answer; None: one pass is the answer."""
        return None

    def activation_places(self) -> set[tuple[int, int]]:
        """Return (stage, channels) of all activations that follow its choice of one, stages from 1."""
        return set()

    def shared_activations(self) -> list[str]:
        """Return the keys `stage-channels` of the activations that the network holds once; none without such."""
        shared = any(ACTIVATIONS.get(name).shared for name in self.activations_used())
        return (
            [f"{stage}-{channels}" for stage, channels in sorted(self.activation_places())] if shared else []
        )

    def shared_cost(self, stage: int) -> Cost:
        """Return the parameters of the shared activations of one stage."""
        own = [ACTIVATIONS.get(name) for name in self.activations_used()]
        places = [channels for number, channels in self.activation_places() if number == stage]
        return Cost(sum(one.params(c) for one in own if one.shared for c in places), 0)

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield the cost of `stem` (where there is one), `stage 1`, `stage 2`, ... and `head`, in this order."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it costs")

    def describe(self) -> str:
        """Return the size in words."""
        return self.called

    def to_yaml(self) -> str:
        """Return YAML text that `load_architecture` reads back as an equal value."""
        return to_yaml(self)

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return a name that follows from the content; `shipped` are the nameless trees of the shipped architectures.

        `canonical_name` is the public form.
        """
        return f"{type(self).__name__.lower()[:60]}.h{digest(self.nameless())}"

    def resized(self, cells: int | None = None, channels: int | None = None) -> Self:
        """Return the same genotype at another number of cells or channels.

        Raises `ArchitectureError` for an impossible size, and for a family without a genotype.
        """
        if cells is None and channels is None:
            return self
        given = " and ".join(
            f"{value} {key}" for key, value in (("cells", cells), ("channels", channels)) if value is not None
        )
        raise ArchitectureError(
            f"{self.name}: got {given}; it is {self.called}, sized by its own depth and width"
        )

    def auxiliary_head(self, input_shape: InputShape) -> tuple[int, int, int, int]:
        """Return the cell behind which an auxiliary head goes, and the channels, height and width of its input.

        Raises `ArchitectureError` where there is no place for one.
        """
        raise ArchitectureError(f"{self.name}: {self.called} has no auxiliary head")

    # What studies of width and depth ask.

    @property
    def total_depth(self) -> int:
        """Return the number of blocks, cells or hidden layers."""
        raise ArchitectureError(f"{self.name}: {self.called} has no depth to compare")

    @property
    def total_width(self) -> int:
        """Return the number that sizes all layers: channels, hidden units, or the sum over stages."""
        raise ArchitectureError(f"{self.name}: {self.called} has no width to compare")

    @property
    def stage_sizes(self) -> StageSizes | None:
        """Return the size of every stage where the family has `depths` and `widths` as options, else None.

        The rules of width and depth are about these families.
        """
        return None

    def factors(self) -> dict[str, float | str]:
        """Return what an analysis may explain the response with, apart from the cost: sizes and choices."""
        return {}

    def changeable(self, changes: Iterable[str]) -> Json:
        """Return the tree that a study changes: without the options that mean nothing once `changes` are made."""
        return to_dict(self)

    # What these methods share.

    def nameless(self) -> Json:
        """Return the tree without the name: the content."""
        tree = to_dict(self)
        del tree["name"]
        return tree

    def changed(self, usual: Mapping[str, Any]) -> Iterator[str]:
        """Yield all that is not as it would be if left out; `usual` are defaults that depend on other options."""
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            if field.is_required() or value == usual.get(key, field.default):
                continue
            if isinstance(value, bool):
                yield key if value else f"not-{key}"
            elif isinstance(value, str):
                yield short_code(value)
            else:
                numbers = value if isinstance(value, tuple) else (value,)
                yield f"{key}{'-'.join(map(str, numbers))}"

    def with_options(self, **changes: object) -> Self:
        """Return the architecture with other options, checked. Raises `ArchitectureError`."""
        return check(type(self), {**self.model_dump(), **changes}, self.name, ArchitectureError)


def by_name(target: str) -> Any:
    """Return what `package.module:name` means; the module is imported."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def digest(tree: Any, separators: tuple[str, str] = (",", ":")) -> str:
    """Return eight hex digits of the SHA-256 of a plain tree's JSON with sorted keys; paths of code do not count."""
    text = json.dumps(names_by_content(tree), sort_keys=True, separators=separators)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def short_code(name: str) -> str:
    """Return `Class-h` and eight hex digits of the file's content for `file.py:Class`, and other names as they are.

    It is the same wherever the file lies; files whose classes have one name differ by the digits.
    """
    if not is_code(name):
        return name
    content, _, found = names_by_content(name).rpartition(":")
    return f"{found}-h{content[:8]}"

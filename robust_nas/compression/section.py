"""The section `compression` of a config: the steps, and how one of the networks is chosen.

    compression: {cstar: {ratios: [4]}, gdws: {budgets: [0.5]}, max_loss: 0.01}          short form of built-in steps
    compression: {steps: [{name: cstar, ratios: [4]}, {name: mine.py:Mine}], max_loss: 0.01}

Steps in short form come in their only possible order, whatever the order of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from robust_nas.compression.compressor import COMPRESSORS, Compressor
from robust_nas.config import UNKNOWN_KEY, Fraction01, Options, keys_in_words

SHORT = tuple(COMPRESSORS.built_in)  # the keys of steps in short form
STEPS = "steps"


class Compression(Options):
    """The steps of a compression, each starting from the network of the step before it.

    Of their networks, the one with the fewest MACs that loses at most `max_loss` of robust accuracy on the
    validation split is chosen. `test` says which are evaluated on the test set in addition to the original: the chosen
    one, the network that it was made from, and its baselines, or all of them, declared before it runs.
    """

    steps: tuple[Annotated[Compressor, COMPRESSORS.field()], ...] = ()  # compressors in their order
    max_loss: Fraction01 = 0.01  # robust accuracy that the chosen network may lose on validation images
    test: Literal["chosen", "all"] = "chosen"  # networks that are evaluated on the test set

    @property
    def label(self) -> str:
        """Return the names of the steps, joined by hyphens."""
        return "-".join(step.name for step in self.steps)

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the types of steps by their names; null leaves one out."""
        return {name: COMPRESSORS.get(name) | None for name in SHORT}

    @model_validator(mode="wrap")
    @classmethod
    def _read_short_form(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        short = in_order(name for name in SHORT if value.get(name) is not None)
        rest = {key: given for key, given in value.items() if key not in SHORT}
        if short and rest.get(STEPS):
            raise ValueError(f"{short[0]} and steps are both given; write {short[0]} as one of the steps")
        try:
            return handler(
                {**rest, STEPS: [_step(name, value[name], cls) for name in short]} if short else rest
            )
        except ValidationError as error:
            raise _placed(error, cls, short) from None

    @model_validator(mode="after")
    def _steps_are_possible(self) -> Self:
        if not self.steps:
            raise ValueError(f"no step is given; at least one of {', '.join((*SHORT, STEPS))} is needed")
        for number, step in enumerate(self.steps):
            if number and step.first:
                raise ValueError(
                    f"{step.label} is step {number + 1}; it takes a model as it was trained, so it has to be the first"
                )
        return self

    @model_serializer(mode="wrap")
    def _write_short_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        names = [step.name for step in self.steps]
        if not has_short_form(names):
            return tree
        steps = {
            name: {key: own[key] for key in own if key != "name"}
            for name, own in zip(names, tree.pop(STEPS), strict=True)
        }
        return {**{name: steps.get(name) for name in SHORT}, **tree}


def key_of(step: Compressor, config: Any, option: str) -> str:
    """Return the key at which a config with such a section holds this option of a step."""
    steps = config.compression.steps
    if has_short_form([one.name for one in steps]):
        return f"compression.{step.name}.{option}"
    return f"compression.{STEPS}.{steps.index(step)}.{option}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of built-in compressors in the order in which they can follow each other."""
    return sorted(names, key=lambda name: (not COMPRESSORS.get(name).first, SHORT.index(name)))


def has_short_form(names: list[str]) -> bool:
    """Return whether steps of these names can be written in short form."""
    return set(names) <= set(SHORT) and len(set(names)) == len(names) and in_order(names) == names


def _step(name: str, options: Any, model: type[Options]) -> Any:
    """Return a step from its short form. Raises `ValidationError` for what is no mapping of its options."""
    if isinstance(options, COMPRESSORS.get(name)):
        return options
    if isinstance(options, Mapping) and "name" not in options:
        return {**options, "name": name}
    kind = PydanticCustomError("method_type", "a mapping of its options is needed, without a name")
    detail = InitErrorDetails(type=kind, loc=(name,), input=options)
    raise ValidationError.from_exception_data(model.__name__, [detail])


def _placed(error: ValidationError, model: type[Options], short: list[str]) -> ValidationError:
    """Return the error with problems of steps at the keys of their short form, and unknown keys with all known ones."""
    known = [*SHORT, *model.model_fields]
    details: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False):
        kind, message, place = problem["type"], problem["msg"], problem["loc"]
        if len(place) == 1 and kind in ("extra_forbidden", UNKNOWN_KEY):
            kind = UNKNOWN_KEY
            message = f"unknown key {str(place[0])[:200]!r}; {keys_in_words(str(place[0]), known)}"
        elif short and len(place) > 1 and place[0] == STEPS:
            place = (short[int(place[1])], *place[2:])
        context = {**problem.get("ctx", {}), "message": message}
        custom = PydanticCustomError(kind, "{message}", context)  # the message may hold braces
        details.append(InitErrorDetails(type=custom, loc=place, input=problem["input"]))
    return ValidationError.from_exception_data(model.__name__, details)

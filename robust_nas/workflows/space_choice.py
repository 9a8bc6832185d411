"""The section `space` of a run config: a search space by name or file, and changes to it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from robust_nas.config import Options, absolute_if_file
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.spaces import CellSpace, is_shipped, load_space
from robust_nas.user_code import absolute_names


class SpaceChoice(Options):
    """A shipped search space or a path to one, and changes to it: any keys of its file."""

    name: str = "dsara"  # shipped search space, or a YAML file
    changes: dict[str, Any] = Field(default={})  # keys of the space's file with other values
    _space: CellSpace | None = PrivateAttr(default=None)

    @field_validator("name")
    @classmethod
    def _is_absolute(cls, name: str) -> str:
        """Return the path of a file as an absolute one: a config means the same space wherever it is read."""
        return name if is_shipped("", name) else absolute_if_file(name)

    @model_validator(mode="wrap")
    @classmethod
    def _read_once(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read the file while the config is checked, where code that it names may run."""
        made = handler(values)
        if made._space is not None:
            return made
        try:
            if (changes := absolute_names(made.changes)) != made.changes:
                made = made.model_copy(update={"changes": changes})
            made._space = load_space(made.name, made.changes)
        except CodeRefusedError:
            raise
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return made

    def load(self) -> CellSpace:
        """Return the space."""
        assert self._space is not None  # noqa: S101 - validated
        return self._space

"""The exception family: what a user did, or met, that this package can put into one sentence.

Every message holds the offending value, where it came from, and what would be accepted. The command line
prints it without a traceback and exits with `exit_code`: 2 for a mistake in what was asked, 1 for a failure.
"""

from __future__ import annotations

MAX_MESSAGE = 20_000  # characters


class RobustNASError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1
    spoken: bool | None = None  # in a job of several ranks: whether another one prints it; None: not known

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


class ConfigError(RobustNASError):
    """A config, an override or an option value is not acceptable."""

    exit_code = 2


class UnknownMethodError(ConfigError):
    """A config names a method that is neither built in nor a plugin."""


class CodeRefusedError(ConfigError):
    """A folder names code, which its reader did not allow."""


class SearchSpaceError(ConfigError):
    """A search space breaks a rule of its schema."""


class ArchitectureError(ConfigError):
    """An architecture is malformed, or does not belong to the space or the input it is used with."""


class KernelError(ConfigError):
    """A kernel matrix is not positive definite: kernel regression has no solution."""


class StudyError(ConfigError):
    """A study asks for what cannot be planned, run together, or concluded from what was measured."""


class DataError(RobustNASError):
    """A dataset is missing, truncated or mislabelled."""


class DataWarning(UserWarning):
    """The images of a dataset are not all that a reader of figures may take them for."""


class CompressionError(ConfigError):
    """A compression asks for what the network cannot give: a budget out of reach, nothing to compress."""


class NothingToCompressError(CompressionError):
    """No layer of a network is one that the step can take."""


class RunError(RobustNASError):
    """A run folder cannot be used or written."""


class RunExistsError(RunError):
    """A folder or file exists and may not be continued or replaced as asked."""

    exit_code = 2


class FigureWarning(UserWarning):
    """A figure was not drawn; the result of which it is does not depend on it."""


class LoggerWarning(UserWarning):
    """A logger raised and was dropped; the result does not depend on it."""


class RecordWarning(UserWarning):
    """An earlier result is damaged, or is not as it was written, and is not taken over."""


class CheckpointError(RobustNASError):
    """A checkpoint or a model file is damaged, foreign, or does not fit."""


class NoModelError(CheckpointError):
    """A folder that should hold a model holds none, or not all of its files."""

    exit_code = 2


class DivergenceError(RobustNASError):
    """A loss or gradient became NaN, infinite or absurdly large."""


class DistributionError(RobustNASError):
    """The processes of a job did not meet, lost one of them, or no longer agree."""


class AttackError(RobustNASError):
    """An attack or an evaluation got inputs that it cannot judge."""

"""What a call of the console script leaves."""

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]

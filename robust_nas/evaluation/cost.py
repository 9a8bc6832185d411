"""What sanity checks look at, and what they have cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Selection = Literal["all", "right", "survivors"]


@dataclass
class Cost:
    """Passes that a check has made, forward and backward, of one image each, and what its attacks had to say."""

    passes: int = 0
    flags: set[str] = field(default_factory=set)

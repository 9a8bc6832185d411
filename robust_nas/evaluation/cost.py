"""What sanity checks look at, and what they have cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Selection = Literal["all", "right", "survivors"]


@dataclass
class Cost:
    """Passes that a check has made, forward and backward, of one image each."""

    passes: int = 0

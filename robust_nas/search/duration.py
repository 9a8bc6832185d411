"""A duration such as `2h`, `90m`, `1.5h` or a number of seconds; the value is in seconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from robust_nas.config import Positive

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """Return the seconds of a text such as `2h`; other values are left for pydantic. Raises `ValueError`."""
    if not isinstance(value, str):
        return value
    number, unit = (value[:-1], value[-1]) if value[-1:] in SECONDS else (value, "s")
    try:
        return float(number) * SECONDS[unit]
    except ValueError:
        raise ValueError("a duration is needed, such as 90s, 30m, 2h or 1d") from None


Duration = Annotated[Positive, BeforeValidator(parse_duration)]

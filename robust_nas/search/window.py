"""A window of counts such as MACs: `0.5G:0.6G`, or two numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from robust_nas.config import NonNegative

UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


def parse_window(value: object) -> object:
    """Return the two numbers of `LOW:HIGH`, each with or without a unit k, M or G; other values come back as they are.

    Raises `ValueError` for a text that is no window.
    """
    if isinstance(value, str):
        try:
            low, high = map(_number, value.split(":"))
        except (ValueError, KeyError):
            raise ValueError("LOW:HIGH is needed, such as 0.5G:0.6G") from None
        return low, high
    if isinstance(value, list | tuple):
        return [_number(part) if isinstance(part, str) and part[-1:].isalpha() else part for part in value]
    return value


def _number(text: str) -> float:
    return float(text[:-1]) * UNITS[text[-1].lower()] if text[-1:].isalpha() else float(text)


def ordered(window: tuple[float, float]) -> tuple[float, float]:
    """Return the window. Raises `ValueError` where it is empty."""
    low, high = window
    if low > high:
        raise ValueError("LOW must be at most HIGH")
    return window


Window = Annotated[tuple[NonNegative, NonNegative], BeforeValidator(parse_window), AfterValidator(ordered)]

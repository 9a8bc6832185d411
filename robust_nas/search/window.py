"""A window of counts such as MACs (`0.5G:0.6G`, or two numbers), and of measured numbers, which may be negative."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from robust_nas.config import NonNegative

UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


def parse_window(text: str) -> tuple[float, float]:
    """Return the two numbers of `LOW:HIGH`, each with or without a unit k, M or G. Raises `ValueError`."""
    return _counts(_numbers(text))


def _numbers(text: str) -> tuple[float, float]:
    try:
        low, high = (
            float(part[:-1]) * UNITS[part[-1].lower()] if part[-1:].isalpha() else float(part)
            for part in text.split(":")
        )
    except (ValueError, KeyError):
        raise ValueError("LOW:HIGH is needed, such as 0.5G:0.6G") from None
    return ordered((low, high))


def ordered(window: tuple[float, float]) -> tuple[float, float]:
    """Return the window. Raises `ValueError` where it is empty."""
    low, high = window
    if not low <= high:
        raise ValueError("LOW must be at most HIGH")
    return window


def _counts(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] < 0:
        raise ValueError("LOW must be at most HIGH, and at least 0")
    return window


def _text_or_numbers(value: object) -> object:
    return _numbers(value) if isinstance(value, str) else value


Window = Annotated[
    tuple[NonNegative, NonNegative], BeforeValidator(_text_or_numbers), AfterValidator(ordered)
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Limits = Annotated[tuple[Finite, Finite], BeforeValidator(_text_or_numbers), AfterValidator(ordered)]

"""Kinds of values that configuration may hold, and the model that refuses unknown keys."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]

_UNITS_OF_TIME = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_OF_SIZE = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"


class StrictModel(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def seconds(value: Any) -> float:
    """``2``, ``"2s"``, ``"500ms"``, ``"1.5m"``, ``"7d"`` -> seconds.

    :raises ValueError: for anything else
    """
    if isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"(ms|s|m|h|d)?", value.lower())
        if match:
            return round(float(match[1]) * _UNITS_OF_TIME[match[2] or "s"], 9)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError('must be a duration, for example 2, "2s" or "500ms"')


def size_bytes(value: Any) -> int:
    """``1000``, ``"100MB"``, ``"1.5 GiB"`` -> bytes; units are powers of 1024.

    :raises ValueError: for anything else
    """
    if isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"([kmgt]?)(?:i?b)?", value.lower())
        if match:
            return int(float(match[1]) * _UNITS_OF_SIZE[match[2]])
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError('must be a size, for example 100000 or "100MB"')


def show_seconds(value: float) -> str:
    return f"{value * 1000:g}ms" if 0 < value < 1 else f"{value:g}s"


def show_bytes(value: int) -> str:
    """In the largest unit that gives a whole number."""
    for unit in ("t", "g", "m", "k"):
        count, rest = divmod(value, _UNITS_OF_SIZE[unit])
        if count and not rest:
            return f"{count}{unit.upper()}B"
    return str(value)


def _no_truth(value: Any) -> Any:
    """Refuse ``true``, which would count as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Duration = Annotated[float, BeforeValidator(seconds)]
Size = Annotated[int, BeforeValidator(size_bytes)]
Count = Annotated[int, BeforeValidator(_no_truth)]

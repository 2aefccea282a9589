"""Statistics of many rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def summary(rounds: Iterable[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """For each measure: in how many rounds it was seen, and min, median, p95, max."""
    values: dict[str, list[float]] = {}
    for each in rounds:
        for name, value in each.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: _spread(sorted(seen)) for name, seen in values.items()}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """A summary, as text."""
    lines = [f"{'':40} {'rounds':>6} {'min':>8} {'median':>8} {'p95':>8} {'max':>8}   ms"]
    for name, spread in found.items():
        cells = " ".join(f"{spread[key]:8.1f}" for key in ("min", "median", "p95", "max"))
        lines.append(f"{name:40} {spread['rounds']:6.0f} {cells}")
    return "\n".join(lines)


def _spread(values: list[float]) -> dict[str, float]:
    def at(share: float) -> float:
        return values[max(0, math.ceil(share * len(values)) - 1)]

    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return {
        "rounds": len(values),
        "min": values[0],
        "median": round(middle, 1),
        "p95": at(0.95),
        "max": values[-1],
    }

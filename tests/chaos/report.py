"""Figures of epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from tests.chaos.epoch import Epoch, Struck
from tests.chaos.faults import Harm
from tests.chaos.history import Change, History, Outcome, Write

SHOWN_SECONDS = 0.3


def of_epoch(epoch: Epoch) -> dict[str, Any]:
    """All results of one epoch, for programs."""
    history = epoch.history
    written: list[Write | Change] = [*history.writes, *history.changes]
    read = (*history.reads, *history.glances)
    outcomes = [each.outcome for each in written]
    gaps = sorted(_gaps(epoch.history), key=lambda gap: gap[0] - gap[1])
    return {
        "epoch": epoch.number,
        "operations": len(written) + len(read),
        "acknowledged": outcomes.count(Outcome.OK),
        "refused": outcomes.count(Outcome.REFUSED),
        "unknown": outcomes.count(Outcome.UNKNOWN),
        "released": outcomes.count(Outcome.RELEASED),
        "reads": len(read),
        "by_server": epoch.history.of_server(),
        "failovers": _changes(epoch),
        "reigns": epoch.ending.reigns,
        "whole_seconds": epoch.ending.whole_seconds,
        "why_not_whole": epoch.ending.why_not_whole,
        "waits": [round(each, 2) for each in epoch.waits],
        "gaps_seconds": [
            round(end - begin, 2) for begin, end in gaps if end - begin > SHOWN_SECONDS
        ],
        "good": epoch.verdict.good,
        "violations": {kind.value: count for kind, count in epoch.verdict.counts.items()},
        "told": [f"{each.kind}: {each.text}" for each in epoch.verdict.violations],
        "faults": [_fault(epoch, each) for each in epoch.struck],
        "looks": [{**asdict(look), "at": round(look.at - epoch.begun, 2)} for look in epoch.looks],
        "errors": epoch.errors,
    }


def of_all(epochs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of all epochs, from what ``of_epoch`` returned for each."""

    def total(key: str) -> int:
        return sum(each[key] for each in epochs)

    faults = [fault for each in epochs for fault in each["faults"] if not fault["error"]]
    outages = {
        harm.value: spread(
            fault["gap"]
            for fault in faults
            if fault["primary"] and fault["harm"] == harm and fault["gap"] is not None
        )
        for harm in Harm
    }
    wholes = [each["whole_seconds"] for each in epochs if each["whole_seconds"] is not None]
    waits = [wait for each in epochs for wait in each["waits"]]
    violations: dict[str, int] = {}
    for each in epochs:
        for kind, count in each["violations"].items():
            violations[kind] = violations.get(kind, 0) + count
    return {
        "epochs": len(epochs),
        "operations": total("operations"),
        "acknowledged": total("acknowledged"),
        "refused": total("refused"),
        "unknown": total("unknown"),
        "released": total("released"),
        "reads": total("reads"),
        "failovers": total("failovers"),
        "faults": len(faults),
        "outages_seconds": {harm: found for harm, found in outages.items() if found["count"]},
        "gaps_seconds": spread(gap for each in epochs for gap in each["gaps_seconds"]),
        "longest_whole_seconds": max([*wholes, *waits], default=None),
        "not_whole": sum(each["whole_seconds"] is None for each in epochs),
        "violations": violations,
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Count, min, median, p95, max."""
    found = sorted(values)
    if not found:
        return {"count": 0}

    def at(share: float) -> float:
        return found[max(0, math.ceil(share * len(found)) - 1)]

    return {
        "count": len(found),
        "min": found[0],
        "median": at(0.5),
        "p95": at(0.95),
        "max": found[-1],
    }


def outage(history: History, begin: float, end: float) -> float | None:
    """The longest time without any acknowledgement that overlaps this time; None: there was none at all."""
    gaps = [
        later - earlier for earlier, later in _gaps(history) if earlier <= end and later >= begin
    ]
    return round(max(gaps), 3) if gaps else None


def _gaps(history: History) -> list[tuple[float, float]]:
    written: list[Write | Change] = [*history.writes, *history.changes]
    ends = sorted(each.end for each in written if each.outcome is Outcome.OK)
    return list(pairwise(ends))


def _changes(epoch: Epoch) -> int:
    names = epoch.ending.reigns or [look.primary for look in epoch.looks if look.term]
    return sum(one != other for one, other in pairwise(names))


def _fault(epoch: Epoch, struck: Struck) -> dict[str, Any]:
    until = max(struck.healed, struck.at) + 1.0
    return {
        "at": round(struck.at - epoch.begun, 2),
        "healed": round(struck.healed - epoch.begun, 2) if struck.healed else None,
        "lane": struck.fault.lane.value,
        "harm": struck.fault.harm.value,
        "role": struck.fault.role.value,
        "hosts": list(struck.hosts),
        "primary": struck.primary,
        "error": struck.error,
        "gap": outage(epoch.history, struck.at, until) if struck.primary else None,
    }

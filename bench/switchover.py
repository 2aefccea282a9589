#!/usr/bin/env python3
"""Change the primary on purpose under load, again and again, and measure what clients see.

Each round: the cluster is whole, writers have written for a while, a switchover to the next member is ordered. The gap
is the longest time without an acknowledged write, of any client, from the order to a second after the new primary took
writes; ``quiet_ms`` is the longest of the half second before the order. Beside the writers, which connect anew, one
client for each member keeps a connection open and tries it every 2 ms while no server is known to take writes, as a
driver with standby connections does. At the end every server is checked for all acknowledged writes.

Exit status: 0 nothing was lost, every switchover succeeded, and no writer saw more than one error in any; 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import figures
import measuring

from holdfast.agent.runtime.steps import KnownStep
from holdfast.core.commands import Drain, Freeze, Promote, name_of
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.demo import temporary_sandbox
from holdfast.sandbox.load.events import Follower, SeenEvent
from holdfast.sandbox.load.journal import Gap, WriteReport
from holdfast.sandbox.load.verification import settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER

FREEZE, PROMOTE = name_of(Freeze), name_of(Promote)
PROBE_SECONDS = 0.002
AFTER_SECONDS = 1.0
OPEN_SECONDS = 40.0
QUIET_SECONDS = 0.5
"""For so long after an order the bench asks the manager nothing: an answer would delay it."""


def main() -> int:
    options = measuring.options(__doc__ or "", 50, 1.0, "each switchover").parse_args()
    with temporary_sandbox(options.server, options.server_binary) as sandbox:
        return _bench(sandbox, options)


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    conditions = measuring.conditions(sandbox, options)
    sandbox.wait_whole()
    token = sandbox.spec.token_file.read_text().strip()
    follower = Follower(
        ManagerClient(sandbox.spec.manager_url, token), CLUSTER, pause=QUIET_SECONDS
    )
    workload = Workload.on(sandbox, options.writers, options.rate, probe_seconds=PROBE_SECONDS)
    rounds: list[dict[str, Any]] = []
    workload.start()
    follower.start()
    try:
        for number in range(1, options.rounds + 1):
            time.sleep(options.seconds)
            rounds.append(_round(sandbox, workload, follower, number))
            print(_round_line(rounds[-1]), flush=True)
    finally:
        report = workload.stop()
        follower.stop()
    settle(sandbox)
    found = verify(sandbox, report)
    result = {
        **conditions,
        "summary": figures.summary(
            {
                "gap_ms": each["gap_ms"],
                "quiet_ms": each["quiet_ms"],
                "order_ms": each["order_ms"],
                **each["steps"],
            }
            for each in rounds
        ),
        "acknowledged": report.acknowledged,
        "unknown": report.unknown,
        "errors": {str(code): count for code, count in sorted(report.errors.items())},
        "most_errors": max(each["most_errors"] for each in rounds),
        "lost": found.lost,
        "identical": found.identical,
        "rounds": rounds,
    }
    _print_summary(result)
    measuring.keep(result, options.out)
    return 0 if found.good and result["most_errors"] <= 1 else 1


def _round(sandbox: Sandbox, workload: Workload, follower: Follower, number: int) -> dict[str, Any]:
    """:raises HoldfastError: the switchover failed"""
    before = sandbox.wait_whole()
    old = str(before["primary"])
    names = [str(each["name"]) for each in before["members"]]
    to = names[(names.index(old) + 1) % len(names)]
    errors = _errors(workload.report())
    begun = time.time()
    sandbox.manager.switch_over(CLUSTER, to)
    time.sleep(QUIET_SECONDS)
    sandbox.wait_until(
        lambda status: status["primary"] == to and bool(status["writable"]), OPEN_SECONDS
    )
    opened = time.time()
    time.sleep(AFTER_SECONDS)
    report = workload.report()
    after = _errors(report)
    gaps = [gap for gap in report.gaps_after(begun) if gap.begin < opened + AFTER_SECONDS]
    quiet = [gap.ms for gap in report.gaps_after(begun - QUIET_SECONDS) if gap.end < begun]
    events = [event for event in follower.events if event.at >= begun]
    ended = next(each.at for each in events if each.ended == "switchover")
    phases = _phases(events, old, to, gaps[0])
    return {
        "round": number,
        "from": old,
        "to": to,
        "gap_ms": round(gaps[0].ms, 2),
        "quiet_ms": round(max(quiet), 2),
        "order_ms": round((ended - begun) * 1000, 1),
        "most_errors": max(count - errors.get(writer, 0) for writer, count in after.items()),
        "load": os.getloadavg()[0],
        "steps": {**phases, **_steps(events, old, to)},
        "events": [
            {"ms": round((each.at - begun) * 1000, 2), "text": each.text, "steps": each.steps}
            for each in events
        ],
    }


def _errors(report: WriteReport) -> dict[int, int]:
    """For each writer that does not search: how many errors it has met."""
    return {each.writer: sum(each.errors.values()) for each in report.journals if not each.searches}


def _steps(events: Sequence[SeenEvent], old: str, to: str) -> dict[str, float]:
    """Milliseconds of the commands that writes wait for, and of their parts."""
    found: dict[str, float] = {}
    for event in events:
        if event.kind != "command" or event.member not in (old, to):
            continue
        if event.name in (FREEZE, PROMOTE) or (event.name == name_of(Drain) and FREEZE in found):
            found.setdefault(event.name, event.ms or 0.0)
            for part, ms in event.steps.items():
                found.setdefault(f"{event.name}.{part}", ms)
    return found


def _phases(events: Sequence[SeenEvent], old: str, to: str, gap: Gap) -> dict[str, float]:
    """The parts of the gap, as the manager saw it; half of a command's round trip is taken for its answer's.

    Nothing if the longest gap is not the one in which writes were stopped.
    """
    ends = {"writes stopped": gap.begin}
    for event in events:
        if event.name == FREEZE and event.member == old:
            ends["frozen"] = event.at
        elif event.named and event.member == to:
            ends["named"] = event.at
        elif event.name == PROMOTE and event.member == to and KnownStep.OPENED in event.steps:
            behind = list(event.steps).index(KnownStep.OPENED) + 1
            spent = sum(event.steps.values())
            after = sum(list(event.steps.values())[behind:])
            ends["open"] = event.at - ((event.ms or spent) - spent) / 2000 - after / 1000
    ends["first write"] = gap.end
    if list(ends.values()) != sorted(ends.values()):
        return {}
    return {
        f"gap: until {name}": round((end - begin) * 1000, 2)
        for (_, begin), (name, end) in pairwise(ends.items())
    }


def _round_line(found: dict[str, Any]) -> str:
    return (
        f"{found['round']:3}  {found['from']} → {found['to']}  gap {found['gap_ms']:7.1f} ms"
        f"  from order to open {found['order_ms']:6.0f} ms  most errors of a writer {found['most_errors']}"
    )


def _print_summary(result: dict[str, Any]) -> None:
    print(f"\n{figures.table(result['summary'])}")
    same = "identical" if result["identical"] else "NOT identical"
    print(
        f"\nacknowledged {result['acknowledged']:,}, lost {result['lost']}, tables {same}; most errors of a "
        f"writer in one switchover {result['most_errors']}; errors by code {result['errors']}"
    )


if __name__ == "__main__":
    sys.exit(measuring.exit_status(main))

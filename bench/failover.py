#!/usr/bin/env python3
"""Lose the primary under load, again and again, and measure what clients see.

Each round: the cluster is whole, writers have written for a while, SIGKILL to the primary's server. The write outage
lasts from the last acknowledged write before to the first one after; clients try all members every 5 ms. After each
round every server is checked for every acknowledged write of the round, and after the last one for all writes of all
rounds, and the tables' checksums.

With ``--hosts`` every host has a network of its own (see ``hosts.py``): the primary is killed, frozen, cut off, or lost
together with the leading manager. It wakes up again, and the clients that stayed connected count its answers.

Exit status: 0 nothing was lost, no old primary answered, and every round ended whole; 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import figures
import measuring
from hosts import Fault, Hosts, strike, temporary_hosts

from holdfast.sandbox.demo import temporary_sandbox
from holdfast.sandbox.load.crash import Crash, Load, crash_primary
from holdfast.sandbox.load.journal import WriteReport
from holdfast.sandbox.load.verification import WriteVerification, settle, verify
from holdfast.sandbox.local.cluster import Sandbox

MEASURES = ("outage_ms", "first_write_ms", "stall_ms", "whole_ms")


def main() -> int:
    options = _options()
    if options.hosts:
        settings = {"profile": options.profile} if options.profile else {}
        with temporary_hosts(
            options.server, options.server_binary, options.managers, settings
        ) as hosts:
            return _bench(hosts, options)
    with temporary_sandbox(options.server, options.server_binary) as sandbox:
        return _bench(sandbox, options)


def _bench(sandbox: Sandbox | Hosts, options: argparse.Namespace) -> int:
    load = Load(options.writers, options.rate, options.seconds)
    conditions = measuring.conditions(sandbox, options)
    rounds: list[dict[str, Any]] = []
    reports: list[WriteReport] = []
    for number in range(1, options.rounds + 1):
        more: dict[str, Any] = {}
        if isinstance(sandbox, Hosts):
            crash, more = strike(sandbox, load, options.fault, number, options.hold)
        else:
            crash = crash_primary(sandbox, load, run=number, checksums=False)
        reports.append(crash.report)
        rounds.append({**_round(number, crash), **more})
        print(_round_line(rounds[-1]), flush=True)
        if crash.whole_ms is None:
            print(f"stopped: {crash.why_not_whole}\n{sandbox.logs()}", file=sys.stderr)
            break
        if crash.verification is None or crash.verification.lost:
            print(f"round {number}: lost {_lost(crash.verification)}", file=sys.stderr)
    whole = rounds[-1]["whole_ms"] is not None
    final = _verify_all(sandbox, reports) if whole else {"lost": None, "identical": None}
    result = {
        **conditions,
        "summary": summary(rounds),
        "final": final,
        "acknowledged": sum(each["acknowledged"] for each in rounds),
        "lost": sum(each["lost"] or 0 for each in rounds),
        "stale_writes": sum(each.get("stale_writes", 0) for each in rounds),
        "stale_reads": sum(each.get("stale_reads", 0) for each in rounds),
        "rounds": rounds,
    }
    _print_summary(result)
    measuring.keep(result, options.out)
    stale = result["stale_writes"] + result["stale_reads"]
    good = whole and not stale and not result["lost"] and not final["lost"] and final["identical"]
    return 0 if good else 1


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each measure and each step: in how many rounds it was seen, and min, median, p95, max."""
    return figures.summary(
        {name: each[name] for name in MEASURES} | each["steps"] for each in rounds
    )


def _round(number: int, crash: Crash) -> dict[str, Any]:
    return {
        "round": number,
        "killed": crash.victim,
        "primary": crash.primary,
        "acknowledged": crash.report.acknowledged,
        "unknown": crash.report.unknown,
        "lost": crash.verification.lost if crash.verification else None,
        "outage_ms": round(crash.outage.ms, 1) if crash.outage else None,
        "first_write_ms": round(crash.first_write_ms, 1) if crash.first_write_ms else None,
        "stall_ms": round(crash.stall.ms, 1) if crash.stall else None,
        "whole_ms": round(crash.whole_ms, 1) if crash.whole_ms else None,
        "load": os.getloadavg()[0],
        "steps": {name: round(ms, 1) for name, ms in crash.step_times().items()},
        "events": [
            {"ms": round(crash.ms(event.at), 1), "text": event.text, "steps": event.steps}
            for event in crash.events
        ],
    }


def _round_line(found: dict[str, Any]) -> str:
    def ms(name: str) -> str:
        return "     -" if found[name] is None else f"{found[name]:6.0f}"

    lost = "?" if found["lost"] is None else found["lost"]
    return (
        f"{found['round']:3}  {found['killed']} → {found['primary'] or '?':3} outage {ms('outage_ms')} ms"
        f"  stall after {ms('stall_ms')} ms  whole {ms('whole_ms')} ms"
        f"  acknowledged {found['acknowledged']:6}  lost {lost}"
        + (
            f"  old primary: {found['stale_writes']} writes, {found['stale_reads']} reads"
            if "fault" in found
            else ""
        )
    )


def _verify_all(sandbox: Sandbox | Hosts, reports: Sequence[WriteReport]) -> dict[str, Any]:
    """Check every server for every acknowledged write of all rounds; checksums once."""
    settle(sandbox)
    checks = [verify(sandbox, report, checksums=report is reports[-1]) for report in reports]
    return {
        "lost": sum(check.lost for check in checks),
        "identical": checks[-1].identical,
        "checksums": {member.name: dict(member.checksums) for member in checks[-1].members},
    }


def _lost(verification: WriteVerification | None) -> str:
    if verification is None:
        return "unknown"
    return ", ".join(
        f"{len(each.lost)} on {each.name} (first {each.lost[:5]})"
        for each in verification.members
        if each.lost
    )


def _print_summary(result: dict[str, Any]) -> None:
    print(f"\n{figures.table(result['summary'])}")
    final = result["final"]
    same = {True: "identical", False: "NOT identical", None: "not compared"}[final["identical"]]
    lost = "not checked" if final["lost"] is None else final["lost"]
    print(
        f"\nacknowledged {result['acknowledged']:,}; lost in a round {result['lost']}, at the end "
        f"{lost}; tables {same}"
    )
    if any("fault" in each for each in result["rounds"]):
        print(
            f"after another had taken over, old primaries acknowledged {result['stale_writes']} writes and "
            f"answered {result['stale_reads']} reads"
        )


def _options() -> argparse.Namespace:
    parser = measuring.options(__doc__ or "", 10, 1.5, "each kill")
    add = parser.add_argument
    add("--hosts", action="store_true", help="in a lab of hosts (needs root)")
    add("--fault", type=Fault, choices=list(Fault), default=Fault.KILL9, help="with --hosts")
    add("--managers", type=int, default=3, help="with --hosts")
    add("--profile", choices=("default", "fast"), help="with --hosts: the cluster's setting")
    add("--hold", type=float, default=2.0, help="seconds for which a fault outlasts the failover")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(measuring.exit_status(main))

#!/usr/bin/env python3
"""Change the primary on purpose under load, again and again, and measure what clients see.

Each round: the cluster is whole, writers have written for a while, a switchover to the next member is ordered. The gap
is the longest time without an acknowledged write, of any client, from the order to a second after the new primary took
writes. Beside the writers, which connect anew, one client for each member keeps a connection open and tries it every
2 ms while nobody is known to take writes, as a driver with standby connections does. At the end all acknowledged writes
are looked for on every server.

Exit status: 0 nothing was lost, every switchover came about, and no writer saw more than one error in any; 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import figures

from holdfast.client import ManagerClient
from holdfast.errors import HoldfastError
from holdfast.sandbox import trees
from holdfast.sandbox.cluster import Sandbox
from holdfast.sandbox.demo import Interrupted, catch_signals, temporary_sandbox
from holdfast.sandbox.events import Event, Follower
from holdfast.sandbox.journal import Report
from holdfast.sandbox.spec import CLUSTER
from holdfast.sandbox.verification import settle, verify
from holdfast.sandbox.workload import Workload

PROBE_SECONDS = 0.002
AFTER_SECONDS = 1.0
OPEN_SECONDS = 40.0
POLL_SECONDS = 0.02


def main() -> int:
    options = _options()
    catch_signals()
    try:
        with temporary_sandbox(options.server, options.server_binary) as sandbox:
            return _bench(sandbox, options)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except HoldfastError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    conditions = _conditions(sandbox, options)
    print(_machine_line(conditions), flush=True)
    sandbox.wait_whole()
    token = sandbox.spec.token_file.read_text().strip()
    follower = Follower(ManagerClient(sandbox.spec.manager_url, token), CLUSTER)
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
            {"gap_ms": each["gap_ms"], "order_ms": each["order_ms"], **each["steps"]}
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
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if found.good and result["most_errors"] <= 1 else 1


def _round(sandbox: Sandbox, workload: Workload, follower: Follower, number: int) -> dict[str, Any]:
    """:raises HoldfastError: the switchover did not come about"""
    before = sandbox.wait_whole()
    old = str(before["primary"])
    names = [str(each["name"]) for each in before["members"]]
    to = names[(names.index(old) + 1) % len(names)]
    errors = _errors(workload.report())
    begun = time.time()
    sandbox.manager.switch_over(CLUSTER, to)
    sandbox.wait_until(
        lambda status: status["primary"] == to and bool(status["writable"]), OPEN_SECONDS
    )
    opened = time.time()
    time.sleep(AFTER_SECONDS)
    report = workload.report()
    after = _errors(report)
    gaps = [gap for gap in report.gaps_after(begun) if gap.begin < opened + AFTER_SECONDS]
    events = [event for event in follower.events if event.at >= begun]
    return {
        "round": number,
        "from": old,
        "to": to,
        "gap_ms": round(gaps[0].ms, 2),
        "order_ms": round((opened - begun) * 1000, 1),
        "most_errors": max(count - errors.get(writer, 0) for writer, count in after.items()),
        "load": os.getloadavg()[0],
        "steps": _steps(events, old, to),
        "events": [
            {"ms": round((each.at - begun) * 1000, 2), "text": each.text, "steps": each.steps}
            for each in events
        ],
    }


def _errors(report: Report) -> dict[int, int]:
    """Of each writer that does not search: how many errors it has met."""
    return {each.writer: sum(each.errors.values()) for each in report.journals if not each.searches}


def _steps(events: Sequence[Event], old: str, to: str) -> dict[str, float]:
    """Milliseconds of the commands that writes wait for, and of their parts."""
    found: dict[str, float] = {}
    for event in events:
        if event.kind != "command" or event.member not in (old, to):
            continue
        if event.name in ("freeze", "promote") or (event.name == "drain" and "freeze" in found):
            found.setdefault(event.name, event.ms or 0.0)
            for part, ms in event.steps.items():
                found.setdefault(f"{event.name}.{part}", ms)
    return found


def _round_line(found: dict[str, Any]) -> str:
    return (
        f"{found['round']:3}  {found['from']} → {found['to']}  gap {found['gap_ms']:7.1f} ms"
        f"  from order to open {found['order_ms']:6.0f} ms  most errors of a writer {found['most_errors']}"
    )


def _conditions(sandbox: Sandbox, options: argparse.Namespace) -> dict[str, Any]:
    tree = trees.find(sandbox.spec.flavor.value, sandbox.spec.binary)
    return {
        "server": sandbox.spec.flavor.value,
        "version": tree.version_text,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "members": sandbox.spec.size,
        "writers": options.writers,
        "rate": options.rate,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _machine_line(found: dict[str, Any]) -> str:
    speed = f"{found['rate']:g} writes/s" if found["rate"] else "full speed"
    return (
        f"{found['server']} {found['version']}, {found['members']} members, {found['writers']} writers at "
        f"{speed}, {found['cpus']} CPUs, load {found['load'][0]:.1f}"
    )


def _print_summary(result: dict[str, Any]) -> None:
    print(f"\n{'':40} {'rounds':>6} {'min':>8} {'median':>8} {'p95':>8} {'max':>8}   ms")
    for name, spread in result["summary"].items():
        cells = " ".join(f"{spread[key]:8.1f}" for key in ("min", "median", "p95", "max"))
        print(f"{name:40} {spread['rounds']:6.0f} {cells}")
    same = "identical" if result["identical"] else "NOT identical"
    print(
        f"\nacknowledged {result['acknowledged']:,}, lost {result['lost']}, tables {same}; most errors of a "
        f"writer in one switchover {result['most_errors']}; errors by code {result['errors']}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--server", choices=("mariadb", "mysql"), default="mariadb")
    add("--server-binary", type=Path, help="use this server instead of the one that is found")
    add("--rounds", type=int, default=50)
    add("--writers", type=int, default=8)
    add("--rate", type=float, help="writes a second, of all together (default: full speed)")
    add("--seconds", type=float, default=1.0, help="of writing before each switchover")
    add("--out", type=Path, help="write everything that was measured to this file, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

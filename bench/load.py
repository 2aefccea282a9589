#!/usr/bin/env python3
"""Keep every processor busy with other work for minutes, and count the failures that the cluster wrongly sees.

A lab of hosts, some writers, and more busy processes than there are processors. Nothing fails: so there must be no
failover, and no voter that loses its vote.

Exit status: 0 there was neither, and nothing was lost; 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import figures
import measuring
from hosts import Hosts, temporary_hosts

from holdfast.errors import HoldfastError
from holdfast.sandbox.lab.plan import CLIENT
from holdfast.sandbox.load.verification import settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.spec import CLUSTER

LOOK_SECONDS = 0.25
WHOLE_SECONDS = 60.0
TELLING = frozenset({"detected", "decided", "led", "failed", "degraded"})
BUSY = "while True: pass"


def main() -> int:
    options = _options()
    settings = {"profile": options.profile} if options.profile else {}
    with temporary_hosts(options.server, None, options.managers, settings) as hosts:
        return _bench(hosts, options)


def _bench(hosts: Hosts, options: argparse.Namespace) -> int:
    before = hosts.wait_whole()
    workload = Workload.on(hosts, options.writers, options.rate)
    with hosts.inside(CLIENT):
        workload.start()
    began = time.time()
    looks: list[dict[str, Any]] = []
    events: dict[int, dict[str, Any]] = {}
    loads: list[float] = []
    try:
        with _busy(options.processes):
            while time.time() < began + options.minutes * 60:
                _look(hosts, looks, began)
                _listen(hosts, events, began)
                loads.append(os.getloadavg()[0])
                time.sleep(LOOK_SECONDS)
        ended = time.time()
        hosts.wait_whole(WHOLE_SECONDS)
    finally:
        report = workload.stop()
    settle(hosts)
    check = verify(hosts, report)
    gaps = sorted(
        (gap for gap in report.gaps_after(began) if gap.begin < ended), key=lambda g: -g.ms
    )
    primaries = [str(before["primary"])]
    primaries += [look["primary"] for look in looks if look["primary"]]
    failovers = sum(a != b for a, b in pairwise(primaries))
    lost_votes = _evictions(looks)
    result = {
        "server": hosts.plan.flavor.value,
        "minutes": options.minutes,
        "processes": options.processes,
        "profile": options.profile or "default",
        "load": figures.summary([{"load": each} for each in loads])["load"],
        "acknowledged": report.acknowledged,
        "lost": check.lost,
        "identical": check.identical,
        "failovers": failovers,
        "evictions": lost_votes,
        "not_writable_looks": sum(not look["writable"] for look in looks),
        "longest_gaps_ms": [round(gap.ms) for gap in gaps[:10]],
        "looks": looks,
        "events": sorted(events.values(), key=lambda each: each["at"]),
    }
    measuring.keep(result, options.out)
    shown = {key: value for key, value in result.items() if key not in ("looks", "events")}
    print(json.dumps(shown, indent=1))
    for event in result["events"]:
        if event["kind"] in TELLING:
            print(f"  +{event['at'] - began:7.1f} s  {event['kind']}: {event['text']}")
    return 0 if not (failovers or lost_votes or check.lost) and check.identical else 1


def _look(hosts: Hosts, looks: list[dict[str, Any]], began: float) -> None:
    """Keep a look that differs from the one before."""
    try:
        status = hosts.status()
    except HoldfastError as error:
        found = {"primary": "", "writable": False, "reason": str(error), "voters": None}
    else:
        found = {
            "primary": status["primary"],
            "writable": status["writable"],
            "reason": status["reason"],
            "voters": sorted(each["name"] for each in status["members"] if each["votes"]),
        }
    if not looks or any(looks[-1][key] != value for key, value in found.items()):
        looks.append({"at": round(time.time() - began, 2), **found})


def _listen(hosts: Hosts, events: dict[int, dict[str, Any]], began: float) -> None:
    with hosts.inside():
        for manager in hosts.plan.managers:
            try:
                for each in hosts.manager(manager).events(CLUSTER, 0, 0.0):
                    if each["at"] >= began:
                        events[each["id"]] = each
            except HoldfastError:
                continue


def _evictions(looks: list[dict[str, Any]]) -> int:
    """How often a member lost its vote."""
    known = [set(look["voters"]) for look in looks if look["voters"] is not None]
    return sum(bool(one - other) for one, other in pairwise(known))


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--server", choices=("mariadb", "mysql"), default="mariadb")
    add("--minutes", type=float, default=30.0)
    add("--processes", type=int, default=2 * (os.cpu_count() or 1), help="that are always busy")
    add("--managers", type=int, default=3)
    add("--profile", choices=("default", "fast"))
    add("--writers", type=int, default=4)
    add("--rate", type=float, default=100.0, help="writes a second, of all together")
    add("--out", type=Path, help="write everything that was measured to this file, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(measuring.exit_status(main))

#!/usr/bin/env python3
"""What a verification costs the clients: their throughput and latency with one under way, and without.

A table of so many rows is verified again and again while writers write at full speed (or at ``--rate``); rounds with
and without it alternate, so that both meet the same machine. Prints acknowledged writes a second and the longest time
without one, of all rounds, and how many rows a second were verified.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from typing import Any

import figures
import measuring

from holdfast.errors import HoldfastError
from holdfast.sandbox.demo import temporary_sandbox
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER

ROWS_A_STATEMENT = 10_000


def main() -> int:
    options = _options()
    with temporary_sandbox(options.server, options.server_binary) as sandbox:
        return _bench(sandbox, options)


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    conditions = measuring.conditions(sandbox, options)
    _fill(sandbox, options.rows)
    rounds = []
    for number in range(1, options.rounds + 1):
        found: dict[str, float | None] = {}
        for verifying in (False, True) if number % 2 else (True, False):
            found |= _measured(sandbox, options, verifying, 2 * number + verifying)
        rounds.append(found)
        print(
            f"round {number}: {', '.join(f'{k} {v:.0f}' for k, v in found.items() if v)}",
            flush=True,
        )
    summary = figures.summary(rounds)
    print(figures.table(summary))
    result = {"conditions": conditions, "rounds": rounds, "summary": summary}
    measuring.keep(result, options.out)
    return 0


def _measured(
    sandbox: Sandbox, options: argparse.Namespace, verifying: bool, run: int
) -> dict[str, float | None]:
    """:param run: another one each time: writers of one run write the same rows"""
    sandbox.wait_whole()
    status = sandbox.status()
    member = next(m["name"] for m in status["members"] if m["name"] != status["primary"])
    workload = Workload.on(sandbox, options.writers, options.rate, run)
    workload.start()
    time.sleep(1.0)
    begun, before = time.monotonic(), workload.acknowledged()
    rows, longest, last, seen = 0, 0.0, begun, before
    if verifying:
        sandbox.manager.verify_member(CLUSTER, member, {"anew": True})
    while time.monotonic() < begun + options.seconds:
        time.sleep(0.002)
        now, acknowledged = time.monotonic(), workload.acknowledged()
        if acknowledged > seen:
            seen, last = acknowledged, now
        longest = max(longest, now - last)
        if verifying and int(now * 500) % 250 == 0:
            with suppress(HoldfastError):
                found: dict[str, Any] = sandbox.manager.verification(CLUSTER, member)
                if found["ended"]:
                    rows += sum(each["rows"] for each in found["results"].values())
                    sandbox.manager.verify_member(CLUSTER, member, {"anew": True})
    took = time.monotonic() - begun
    written = workload.acknowledged() - before
    workload.stop()
    name = "verifying" if verifying else "without"
    found_rates: dict[str, float | None] = {
        f"{name}: writes a second": round(written / took, 1),
        f"{name}: longest ms without one": round(longest * 1000, 1),
    }
    if verifying:
        findings = sandbox.manager.verification(CLUSTER, member)
        rows += sum(each["rows"] for each in findings["results"].values())
        sandbox.manager.verify_member(CLUSTER, member, {"stop": True})
        found_rates["rows verified a second"] = round(rows / took, 1)
    return found_rates


def _fill(sandbox: Sandbox, rows: int) -> None:
    with sandbox.connect(sandbox.status()["primary"]) as at, at.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE app.verified (id int PRIMARY KEY, a int, b varchar(60), c datetime)"
        )
        for first in range(0, rows, ROWS_A_STATEMENT):
            values = ", ".join(
                f"({n}, {n * 7 % 1000}, 'row number {n} of the table', '2026-01-01')"
                for n in range(first, min(first + ROWS_A_STATEMENT, rows))
            )
            cursor.execute(f"INSERT INTO app.verified VALUES {values}")


def _options() -> argparse.Namespace:
    parser = measuring.options(__doc__ or "", rounds=5, seconds=15.0, before="each figure")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(measuring.exit_status(main))

#!/usr/bin/env python3
"""What it costs to observe a server: each query that an agent sends to it all the time, while writers write.

They are sent here as an agent sends them, in separate sessions, to the primary and to a replica: for its state, for the
sessions of its replicas (an agent asks only a primary), and for its receiver's thread (only a voter). Prints how long
the answers took, and behind each how often an agent sends it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import closing

import figures
import measuring

from holdfast.sandbox.demo import temporary_sandbox
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.server.assembly import local_server
from holdfast.server.base import Deadline, Server

SECONDS = 5.0
"""How long an answer may take."""


def main() -> int:
    options = measuring.options(
        __doc__ or "", rounds=300, seconds=2.0, before="asking"
    ).parse_args()
    with temporary_sandbox(options.server, options.server_binary) as sandbox:
        return _bench(sandbox, options)


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    conditions = measuring.conditions(sandbox, options)
    status = sandbox.wait_whole()
    replica = next(m["name"] for m in status["members"] if m["name"] != status["primary"])
    workload = Workload.on(sandbox, options.writers, options.rate, 1)
    workload.start()
    time.sleep(options.seconds)
    rounds = [
        {f"{role}: {what}": took for what, took in found.items()}
        for role, name in (("primary", status["primary"]), ("replica", replica))
        for found in _asked(sandbox, name, options.rounds)
    ]
    workload.stop()
    summary = figures.summary(rounds)
    print(figures.table(summary))
    measuring.keep({"conditions": conditions, "summary": summary}, options.out)
    return 0


def _asked(sandbox: Sandbox, name: str, rounds: int) -> list[dict[str, float]]:
    member = sandbox.spec.member(name)
    account = sandbox.accounts.admin
    server: Server = local_server(sandbox.spec.flavor, member.socket, account)
    questions: dict[str, Callable[[], object]] = {
        "state (4 a second)": lambda: server.observe(Deadline(SECONDS)),
        "replicas (20 a second)": lambda: server.dumps.look(Deadline(SECONDS)),
        "receiver (1 a second)": lambda: server.receiver_thread(Deadline(SECONDS)),
    }
    with closing(server):
        return [{what: _timed(ask) for what, ask in questions.items()} for _ in range(rounds)]


def _timed(ask: Callable[[], object]) -> float:
    begun = time.perf_counter()
    ask()
    return round((time.perf_counter() - begun) * 1000, 3)


if __name__ == "__main__":
    sys.exit(measuring.exit_status(main))

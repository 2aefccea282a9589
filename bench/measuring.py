"""What benches share: their options, their description of the machine, their exit status."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosts import Hosts

from holdfast.errors import HoldfastError
from holdfast.sandbox.demo import Interrupted, catch_signals
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.servers import trees


def options(purpose: str, rounds: int, seconds: float, before: str) -> argparse.ArgumentParser:
    """:param purpose: its first line is shown
    :param seconds: how long writers write before each round; :param before: before what that is
    """
    parser = argparse.ArgumentParser(description=purpose.partition("\n")[0])
    add = parser.add_argument
    add("--server", choices=("mariadb", "mysql"), default="mariadb")
    add("--server-binary", type=Path, help="use this server instead of the one that is found")
    add("--rounds", type=int, default=rounds)
    add("--writers", type=int, default=8)
    add("--rate", type=float, help="writes a second, of all together (default: full speed)")
    add("--seconds", type=float, default=seconds, help=f"of writing before {before}")
    add("--out", type=Path, help="write everything that was measured to this file, as JSON")
    return parser


def exit_status(bench: Callable[[], int]) -> int:
    """The bench's status, or that of the error that stopped it."""
    catch_signals()
    try:
        return bench()
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except HoldfastError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def conditions(sandbox: Sandbox | Hosts, given: argparse.Namespace) -> dict[str, Any]:
    """The conditions of the measurement; shown at once."""
    tree = trees.find(sandbox.spec.flavor.value, sandbox.spec.binary)
    found = {
        "server": sandbox.spec.flavor.value,
        "version": tree.version_text,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "members": sandbox.spec.size,
        "writers": given.writers,
        "rate": given.rate,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    speed = f"{given.rate:g} writes/s" if given.rate else "full speed"
    print(
        f"{found['server']} {found['version']}, {found['members']} members, {found['writers']} writers at "
        f"{speed}, {found['cpus']} CPUs, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return found


def keep(result: dict[str, Any], out: Path | None) -> None:
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")

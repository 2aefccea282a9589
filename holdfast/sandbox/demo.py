"""``scripts/demo``: a cluster loses its primary under load, and the demo shows and checks everything.

Exit status: 0 nothing acknowledged was lost and the cluster is whole again; 1 otherwise; 130 or 143 when interrupted.
In any case no process is left running and no file is left behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.sandbox.load.crash import Crash, Load, crash_primary
from holdfast.sandbox.load.timeline import Timeline
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import free_base_port
from holdfast.sandbox.servers import trees
from holdfast.sandbox.waiting import quiet, remove_quietly

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the demo: everything is cleaned up on the way out."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    catch_signals()
    try:
        with temporary_sandbox(options.server, options.server_binary, options.json) as sandbox:
            return _demo(sandbox, options)
    except Interrupted as interrupted:
        print("interrupted: everything was stopped and removed", file=sys.stderr)
        return 128 + interrupted.number
    except HoldfastError as error:
        print(f"demo: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        return 1


def on_stderr(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def catch_signals() -> None:
    """Make signals that end a program raise `Interrupted` in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


@contextmanager
def temporary_sandbox(
    flavor: str, binary: Path | None = None, silent: bool = False, members: int = 3
) -> Iterator[Sandbox]:
    """A whole cluster in a folder and on ports of its own, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    sandbox: Sandbox | None = None
    try:
        say = quiet if silent else on_stderr
        sandbox = Sandbox.create(
            folder / "cluster", Flavor(flavor), members, free_base_port(), binary, say
        )
        sandbox.up()
        yield sandbox
    finally:
        ignored = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        if sandbox is not None:
            remove_quietly(sandbox)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in ignored.items():
            signal.signal(number, handler)


def summary(sandbox: Sandbox, crash: Crash, load: Load, version: str) -> dict[str, Any]:
    """All results, for programs."""
    check, seen = crash.verification, crash.through
    return {
        "ok": crash.good,
        "server": sandbox.spec.flavor.value,
        "version": version,
        "members": sandbox.spec.size,
        "writers": load.writers,
        "killed": crash.victim,
        "primary": crash.primary,
        "acknowledged": crash.report.acknowledged + (seen.report.acknowledged if seen else 0),
        "lost": crash.lost,
        "unknown": crash.report.unknown,
        "unknown_present": max((m.unacknowledged for m in check.members), default=0)
        if check
        else None,
        "identical": check.identical if check else None,
        "write_outage_ms": _rounded(crash.outage.ms if crash.outage else None),
        "through_haproxy": {
            "writers": load.through,
            "acknowledged": seen.report.acknowledged,
            "lost": seen.lost,
            "unknown": seen.report.unknown,
            "write_outage_ms": _rounded(seen.outage.ms if seen.outage else None),
        }
        if seen
        else None,
        "first_write_ms": _rounded(crash.first_write_ms),
        "stall_after_ms": _rounded(crash.stall.ms if crash.stall else None),
        "whole_ms": _rounded(crash.whole_ms),
        "why_not_whole": crash.why_not_whole,
        "timeline": [
            {
                "ms": _rounded(crash.ms(event.at)),
                "kind": event.kind,
                "member": event.member,
                "text": event.text,
                "steps": event.steps,
            }
            for event in crash.events
        ],
    }


def _demo(sandbox: Sandbox, options: argparse.Namespace) -> int:
    load = Load(options.writers, options.rate, options.seconds, 1.0, options.through)
    version = trees.find(sandbox.spec.flavor.value, sandbox.spec.binary).version_text
    if options.json:
        crash = crash_primary(sandbox, load)
        print(json.dumps(summary(sandbox, crash, load, version)))
        return 0 if crash.good else 1
    status = sandbox.status()
    print(
        f"{version}: {sandbox.spec.size} members, {status['primary']} is primary, every commit waits "
        f"for {status['acks']} other{'s' if status['acks'] != 1 else ''}"
    )
    also = f", {load.through} more through HAProxy" if load.through and sandbox.endpoint() else ""
    print(
        f"{load.writers} writers write for {load.before_seconds:g} s{also}; then the primary is killed"
    )
    timeline = Timeline()
    timeline.start()
    try:
        crash = crash_primary(sandbox, load, on_event=timeline.add)
    finally:
        timeline.stop()
    _print_summary(summary(sandbox, crash, load, version))
    if not crash.good:
        print(sandbox.logs(), file=sys.stderr)
    return 0 if crash.good else 1


def _print_summary(found: dict[str, Any]) -> None:
    def ms(value: float | None, otherwise: str) -> str:
        return otherwise if value is None else f"{value:,.0f} ms"

    print()
    print(f"  acknowledged   {found['acknowledged']:,} writes")
    if found["lost"] is None:
        print("  lost           not checked: the cluster is not whole")
    else:
        print(
            f"  lost           {found['lost']:,} (looked for on each of {found['members']} members)"
        )
        print(
            f"  unknown        {found['unknown']:,} writes ended in an error; "
            f"{found['unknown_present']:,} of them are there nevertheless"
        )
        print(f"  tables         {'identical' if found['identical'] else 'NOT identical'}")
    print(f"  write outage   {ms(found['write_outage_ms'], 'no write was acknowledged any more')}")
    if through := found["through_haproxy"]:
        print(
            f"  by HAProxy     {ms(through['write_outage_ms'], 'no write was acknowledged any more')}"
        )
    print(f"  whole again    {ms(found['whole_ms'], 'NO: ' + found['why_not_whole'])}")
    print()
    print("nothing acknowledged was lost" if found["ok"] else "FAILED", flush=True)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Start a cluster, write to it, kill its primary, and check every write.",
        epilog="Exit status: 0 nothing lost and whole again, 1 otherwise, 2 wrong usage.",
    )
    add = parser.add_argument
    add("--server", choices=("mariadb", "mysql"), default="mariadb", help="default: mariadb")
    add("--server-binary", type=Path, help="use this server instead of the one that is found")
    add("--json", action="store_true", help="print the result for machines, and nothing else")
    add("--writers", type=_count, default=8, help="how many clients write (default: 8)")
    add(
        "--through", type=_count, default=2, help="how many more write through HAProxy (default: 2)"
    )
    add("--rate", type=_positive, help="writes a second, of all together (default: full speed)")
    add("--seconds", type=_positive, default=3.0, help="of writing before the kill (default: 3)")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError("must be from 1 to 200")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


if __name__ == "__main__":
    sys.exit(main())

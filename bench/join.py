#!/usr/bin/env python3
"""Have a replica leave and come back under load, again and again, and measure how long its admission holds writes up.

    rejoin   three members; a replica's server is killed, comes back, catches up, votes again
    behind   the same, and meanwhile ``--behind-mb`` of binlog were written that it has to catch up
    alone    two members, when_alone=serve: the primary serves alone, and then beside it again; what was written
             meanwhile is little, or ``--behind-mb``

Of each round: the longest time without any acknowledged write from the decision that the member votes until 0.3 s
after the last step (``admission_ms``), and in as long a window before (``quiet_ms``): what the machine does to writers
anyway. After each round every acknowledged write of it is looked for on every server.

Exit status: 0 nothing was lost and every round ended whole, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import figures

from holdfast.errors import HoldfastError
from holdfast.sandbox import trees
from holdfast.sandbox.admission import Admission, Window, admit_again
from holdfast.sandbox.cluster import Sandbox
from holdfast.sandbox.crash import Load
from holdfast.sandbox.demo import Interrupted, catch_signals, temporary_sandbox
from holdfast.sandbox.spec import CLUSTER


class Scenario(StrEnum):
    REJOIN = "rejoin"
    BEHIND = "behind"
    ALONE = "alone"


MEMBERS = {Scenario.REJOIN: 3, Scenario.BEHIND: 3, Scenario.ALONE: 2}
GOAL_MS = 50.0
MEASURES = (
    "admission_ms",
    "quiet_ms",
    "more_than_quiet_ms",
    "one_writer_ms",
    "one_writer_quiet_ms",
    "leaving_ms",
    "catching_up_ms",
    "window_ms",
    "whole_ms",
)


def main() -> int:
    options = _options()
    catch_signals()
    try:
        size = MEMBERS[options.scenario]
        with temporary_sandbox(options.server, options.server_binary, members=size) as sandbox:
            return _bench(sandbox, options)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except HoldfastError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    settings = dict(options.set)
    if options.scenario is Scenario.ALONE:
        settings["when_alone"] = "serve"
    if settings:
        sandbox.manager.change_settings(CLUSTER, settings)
    load = Load(options.writers, options.rate, options.seconds)
    print(_machine_line(sandbox, options), flush=True)
    rounds: list[dict[str, Any]] = []
    stopped = ""
    for number in range(1, options.rounds + 1):
        try:
            admission = admit_again(sandbox, load, number, options.behind_mb, options.explain)
        except HoldfastError as error:
            stopped = f"round {number}: {error}"
            print(f"stopped: {stopped}\n{sandbox.logs()}", file=sys.stderr)
            break
        rounds.append(_round(number, admission))
        print(_round_line(rounds[-1]), flush=True)
    result = {
        **_conditions(sandbox, options),
        "goal_ms": GOAL_MS,
        "summary": summary(rounds),
        "acknowledged": sum(each["acknowledged"] for each in rounds),
        "lost": sum(each["lost"] for each in rounds),
        "stopped": stopped,
        "rounds": rounds,
    }
    _print_summary(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if rounds and not stopped and not result["lost"] else 1


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each measure, stage and step: in how many rounds it was seen, and min, median, p95, max."""
    return figures.summary(
        {name: each[name] for name in MEASURES}
        | {f"stage {name}": ms for name, ms in each["stages"].items()}
        | each["steps"]
        for each in rounds
    )


def _round(number: int, found: Admission) -> dict[str, Any]:
    admission, quiet = found.admission, found.quiet
    more = None if admission.ms is None or quiet.ms is None else admission.ms - quiet.ms
    return {
        "round": number,
        "member": found.victim,
        "acknowledged": found.report.acknowledged,
        "unknown": found.report.unknown,
        "lost": found.verification.lost,
        "admission_ms": _ms(admission),
        "admission_at_ms": admission.longest
        and round((admission.longest.begin - admission.begin) * 1000, 1),
        "quiet_ms": _ms(quiet),
        "quiet_window_ms": round(quiet.seconds * 1000),
        "more_than_quiet_ms": None if more is None else round(more, 1),
        "one_writer_ms": round(admission.one_writer_ms, 1),
        "one_writer_quiet_ms": round(quiet.one_writer_ms, 1),
        "leaving_ms": _ms(found.leaving) if found.leaving else None,
        "catching_up_ms": _ms(found.catching_up),
        "caught_up_after_ms": round(found.catching_up.seconds * 1000),
        "window_ms": round(admission.seconds * 1000),
        "whole_ms": round(found.whole_ms),
        "load": os.getloadavg()[0],
        "states": found.states,
        "stages": {name: round(ms) for name, ms in found.stage_ms.items()},
        "steps": {name: round(ms, 1) for name, ms in found.step_ms.items()},
        "looks": [
            {
                "ms": round((look.at - found.catching_up.begin) * 1000),
                "stage": look.stage,
                "bytes_behind": look.bytes_behind,
                "eta_seconds": look.eta_seconds,
            }
            for look in found.looks
        ],
        "events": [
            {
                "ms": round((event.at - admission.begin) * 1000, 1),
                "text": event.text,
                "took_ms": event.ms,
                "steps": event.steps,
            }
            for event in found.events
        ],
    }


def _ms(window: Window) -> float | None:
    return None if window.ms is None else round(window.ms, 1)


def _round_line(found: dict[str, Any]) -> str:
    def ms(name: str) -> str:
        return "     -" if found[name] is None else f"{found[name]:6.0f}"

    stages = ", ".join(f"{name} {ms / 1000:.1f} s" for name, ms in found["stages"].items())
    return (
        f"{found['round']:3}  {found['member']}: admission {ms('admission_ms')} ms  quiet {ms('quiet_ms')} ms"
        f"  catching up {ms('catching_up_ms')} ms (for {found['caught_up_after_ms'] / 1000:.1f} s)"
        f"  acknowledged {found['acknowledged']:6}  lost {found['lost']}  load {found['load']:.1f}"
        + (f"\n     {stages}" if stages else "")
        + "".join(f"\n     {count:g} writers: {state}" for state, count in found["states"].items())
    )


def _conditions(sandbox: Sandbox, options: argparse.Namespace) -> dict[str, Any]:
    tree = trees.find(sandbox.spec.flavor.value, sandbox.spec.binary)
    return {
        "scenario": options.scenario.value,
        "server": sandbox.spec.flavor.value,
        "version": tree.version_text,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "members": sandbox.spec.size,
        "writers": options.writers,
        "rate": options.rate,
        "behind_mb": options.behind_mb,
        "settings": dict(options.set),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _machine_line(sandbox: Sandbox, options: argparse.Namespace) -> str:
    found = _conditions(sandbox, options)
    speed = f"{found['rate']:g} writes/s" if found["rate"] else "full speed"
    behind = f" ({found['behind_mb']} MB behind)" if found["behind_mb"] else ""
    return (
        f"{found['scenario']}{behind}: {found['server']} {found['version']}, {found['members']} members, "
        f"{found['writers']} writers at {speed}, {found['cpus']} CPUs, load {found['load'][0]:.1f}"
    )


def _print_summary(result: dict[str, Any]) -> None:
    print(f"\n{'':40} {'rounds':>6} {'min':>8} {'median':>8} {'p95':>8} {'max':>8}   ms")
    for name, spread in result["summary"].items():
        cells = " ".join(f"{spread[key]:8.1f}" for key in ("min", "median", "p95", "max"))
        print(f"{name:40} {spread['rounds']:6.0f} {cells}")
    print(f"\nacknowledged {result['acknowledged']:,}; lost {result['lost']}")
    if held := result["summary"].get("admission_ms"):
        met = "met" if held["p95"] < GOAL_MS else "missed"
        print(f"goal: p95 of admission_ms below {GOAL_MS:g}: {met} ({held['p95']:g})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("scenario", type=Scenario, choices=list(Scenario), nargs="?", default=Scenario.REJOIN)
    add("--server", choices=("mariadb", "mysql"), default="mariadb")
    add("--server-binary", type=Path, help="use this server instead of the one that is found")
    add("--rounds", type=int, default=10)
    add("--writers", type=int, default=8)
    add("--rate", type=float, help="writes a second, of all together (default: full speed)")
    add("--seconds", type=float, default=3.0, help="of writing before the member leaves or returns")
    add(
        "--behind-mb",
        type=int,
        help="how much it has to catch up (default: 500 for behind, else 0)",
    )
    add("--explain", action="store_true", help="tell what writers wait for in the longest gap")
    add("--set", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="a setting")
    add("--out", type=Path, help="write everything that was measured to this file, as JSON")
    options = parser.parse_args()
    if options.behind_mb is None:
        options.behind_mb = 500 if options.scenario is Scenario.BEHIND else 0
    return options


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("must be KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())

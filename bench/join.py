#!/usr/bin/env python3
"""Have a replica leave and come back under load, again and again, and measure how long its admission delays writes.

    rejoin   three members; a replica's server is killed, comes back, catches up, votes again
    behind   the same, and meanwhile ``--behind-mb`` of binlog were written that it has to catch up
    alone    two members, when_alone=serve: the primary serves alone, and then beside it again; what was written
             meanwhile is little, or ``--behind-mb``

For each round: the longest time without any acknowledged write from the decision that the member votes until 0.3 s
after the last step (``admission_ms``), and in as long a window before (``quiet_ms``): what the machine does to writers
anyway. After each round every server is checked for every acknowledged write of the round.

Exit status: 0 nothing was lost and every round ended whole, 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import figures
import measuring

from holdfast.errors import HoldfastError
from holdfast.sandbox.demo import temporary_sandbox
from holdfast.sandbox.load.admission import Admission, Window, admit_again
from holdfast.sandbox.load.crash import Load
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER


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
    size = MEMBERS[options.scenario]
    with temporary_sandbox(options.server, options.server_binary, members=size) as sandbox:
        return _bench(sandbox, options)


def _bench(sandbox: Sandbox, options: argparse.Namespace) -> int:
    settings = dict(options.set)
    if options.scenario is Scenario.ALONE:
        settings["when_alone"] = "serve"
    if settings:
        sandbox.manager.change_settings(CLUSTER, settings)
    load = Load(options.writers, options.rate, options.seconds)
    behind = f" ({options.behind_mb} MB behind)" if options.behind_mb else ""
    print(f"{options.scenario.value}{behind}: ", end="")
    conditions = measuring.conditions(sandbox, options)
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
        "scenario": options.scenario.value,
        **conditions,
        "behind_mb": options.behind_mb,
        "settings": dict(options.set),
        "goal_ms": GOAL_MS,
        "summary": summary(rounds),
        "acknowledged": sum(each["acknowledged"] for each in rounds),
        "lost": sum(each["lost"] for each in rounds),
        "stopped": stopped,
        "rounds": rounds,
    }
    _print_summary(result)
    measuring.keep(result, options.out)
    return 0 if rounds and not stopped and not result["lost"] else 1


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each measure, stage and step: in how many rounds it was seen, and min, median, p95, max."""
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


def _print_summary(result: dict[str, Any]) -> None:
    print(f"\n{figures.table(result['summary'])}")
    print(f"\nacknowledged {result['acknowledged']:,}; lost {result['lost']}")
    if held := result["summary"].get("admission_ms"):
        met = "met" if held["p95"] < GOAL_MS else "missed"
        print(f"goal: p95 of admission_ms below {GOAL_MS:g}: {met} ({held['p95']:g})")


def _options() -> argparse.Namespace:
    parser = measuring.options(__doc__ or "", 10, 3.0, "the member leaves or returns")
    add = parser.add_argument
    add("scenario", type=Scenario, choices=list(Scenario), nargs="?", default=Scenario.REJOIN)
    add(
        "--behind-mb",
        type=int,
        help="how much it has to catch up (default: 500 for behind, else 0)",
    )
    add("--explain", action="store_true", help="tell what writers wait for in the longest gap")
    add("--set", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="a setting")
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
    sys.exit(measuring.exit_status(main))

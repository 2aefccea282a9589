"""``holdfast status``: a cluster as its manager sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import typer

from holdfast.cli.kit.columns import print_columns
from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.cli.kit.durations import moment
from holdfast.core.wording import agree

NOT_WRITABLE = 4
STYLES = {
    "primary": "bold green",
    "voter": "green",
    "learner": "yellow",
    "standby": "cyan",
    "out": "red",
}


def status(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a cluster: who is primary, who acknowledges, and why anything is not well.

    Exits with 0 if the cluster takes writes, with 4 if not.
    """
    client, name = connect(manager, token_file, cluster)
    answer = client.status(name)
    leader = client.leader(name)
    if as_json:
        answer["leader"] = leader
    show(answer, as_json, led_by(leader, client.url))


def led_by(leader: dict[str, Any], asked: str) -> str:
    """Which manager leads, if it is not simply the one that was asked; else "".

    :param asked: the URL of the manager that was asked
    """
    if leader["leads"] and leader["url"] in ("", asked):
        return ""
    if not leader["name"]:
        return "no manager leads it now"
    return f"led by {leader['name']}" + (f" ({leader['url']})" if leader["url"] else "")


def show(answer: dict[str, Any], as_json: bool, led: str = "") -> None:
    """Print a status, and end with an exit code that says whether the cluster takes writes."""
    if as_json:
        print(json.dumps(answer))
    else:
        _print(answer)
        if led:
            print(led)
    if not answer["writable"]:
        raise typer.Exit(NOT_WRITABLE)


MOST_PREPARED = 5
"""Maximum number of prepared XA transactions that are named."""
MOST_TABLES = 5
"""Maximum number of tables that are named in which a member differs."""


def short_gtids(text: str, width: int = 40) -> str:
    """A GTID set shortened for people: the ends of a UUID, as many streams as fit."""
    from holdfast.core.gtid import Flavor, parse

    flavor = Flavor.MYSQL if ":" in text else Flavor.MARIADB
    streams = []
    for stream in str(parse(flavor, text)).split(","):
        uuid, colon, intervals = stream.strip().partition(":")
        # the first digits are the same for two servers that were started together
        streams.append(f"{uuid[:4]}…{uuid[-4:]}:{intervals}" if colon else uuid)
    shown = ", ".join(streams)
    if len(shown) <= width:
        return shown
    kept = 1
    while kept < len(streams) and len(", ".join(streams[: kept + 1])) <= width - 6:
        kept += 1
    left = len(streams) - kept
    first = ", ".join(streams[:kept])
    return f"{first} +{left}" if left else first[: width - 1] + "…"


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(_head(answer), style="bold"))
    members = answer["members"]
    further = {
        heading: cell
        for heading, cell in FURTHER.items()
        if any(cell(member) for member in members)
    }
    head = ("member", "address", "role", *further, "state", "received", "lag")
    rows = [
        [
            (member["name"], ""),
            (f"{member['host']}:{member['port']}", ""),
            (member["role"], STYLES.get(member["role"], "")),
            *((cell(member), "") for cell in further.values()),
            (member["state"], ""),
            (_received(member), ""),
            (_lag(member), ""),
        ]
        for member in members
    ]
    print_columns(head, rows, right=("behind", "lag"))
    for member in members:
        if member.get("progress"):
            console.print(Text(f"{member['name']}: {progress_line(member['progress'])}"))
    if kept := kept_by(members):
        console.print(Text(kept))
    for line in standby_lines(members):
        console.print(Text(line))
    if prepared := prepared_line(members):
        console.print(Text(prepared))
    if answer.get("brought"):
        console.print(Text(answer["brought"], style="yellow"))
    for line in let_through_lines(members):
        console.print(Text(line, style="red"))
    for line in concern_lines(members):
        console.print(Text(line, style="yellow"))
    if verified := verification_line(members):
        console.print(Text(verified, style="red"))
    if waiting := answer.get("waiting"):
        console.print(Text(f"{waiting} (holdfast switchover --cancel calls it off)"))
    _print_reasons(console, answer)


def _received(member: dict[str, Any]) -> str:
    """What the member has received, with its age if it is not current."""
    received, age = short_gtids(member["received"]), member.get("age_seconds", 0.0)
    if age is None:
        return "?"
    return f"{received} ({duration(age)} ago)" if age and received else received


def _lag(member: dict[str, Any]) -> str:
    lag = member["lag_seconds"]
    if lag is not None:
        return f"{lag:g} s"
    known = member.get("age_seconds", 0.0) == 0
    return "-" if known or member["role"] == "primary" else "?"


def _head(answer: dict[str, Any]) -> str:
    acks = answer["acks"]
    if not answer["term"]:
        return f"{answer['cluster']}: no record"
    head = f"{answer['cluster']}: term {answer['term']}, {answer['mode']}"
    if answer.get("degraded"):
        head += " (degraded: commits do not wait now)"
    if answer.get("doubt"):
        head += " (in doubt: a replica that is no voter acknowledged)"
    head += f", {acks} ack" + ("" if acks == 1 else "s")
    if answer.get("paused"):
        until = answer.get("paused_until")
        head += f", PAUSED{f' until {moment(until)}' if until else ''}"
    if planned := answer.get("planned"):
        head += f", switchover to {planned[1] or 'the best'} planned for {moment(planned[0])}"
    return head


def prepared_line(members: list[dict[str, Any]]) -> str:
    """XA transactions that wait for their COMMIT or ROLLBACK, and where: they hold their locks until then."""
    places: dict[str, list[str]] = {}
    for member in members:
        for xid in member.get("prepared", ()):
            places.setdefault(xid, []).append(member["name"])
    named = [f"{xid} ({', '.join(where)})" for xid, where in sorted(places.items())]
    more = f" and {len(named) - MOST_PREPARED} more" if len(named) > MOST_PREPARED else ""
    return f"prepared XA transactions: {'; '.join(named[:MOST_PREPARED])}{more}" if named else ""


def standby_lines(members: Sequence[dict[str, Any]]) -> list[str]:
    """Members that do not vote although all is well, and why: each cause once."""
    causes: dict[str, list[str]] = {}
    for member in members:
        if why := member.get("standby"):
            causes.setdefault(why, []).append(member["name"])
    return [
        f"{agree(names, 'is a standby', 'are standbys')}: {why}" for why, names in causes.items()
    ]


def let_through_lines(members: Sequence[dict[str, Any]]) -> list[str]:
    """For each primary that released commits without a voter: how many are known, until a row was acknowledged
    since."""
    return [
        f"{member['name']}: transactions acknowledged without a voter so far: {member['unacknowledged']} "
        f"({member['let_through']})"
        for member in members
        if member.get("let_through")
    ]


def concern_lines(members: Sequence[dict[str, Any]]) -> list[str]:
    """What an operator should attend to, although the member is well."""
    return [
        f"{member['name']}: {each}" for member in members for each in member.get("concerns", ())
    ]


def verification_line(members: Sequence[dict[str, Any]]) -> str:
    """Which last verifications found differences, or failed; the rows are in the reasons, and in the history."""
    found = []
    for member in members:
        last = member.get("verified") or {}
        tables = [str(each["table"]) for each in member.get("differs", ())]
        if not (last.get("different") or last.get("failed")):
            continue
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["ended"] or last["began"]))
        text = f"{member['name']}, {at}, against {last['primary']}:"
        if last.get("failed"):
            text += f" failed: {last['halted']};"
        if last["different"]:
            named = ", ".join(tables[:MOST_TABLES])
            more = last["different"] - len(tables[:MOST_TABLES])
            text += f" differs in {named}{f' and {more} more tables' if more > 0 else ''};"
        found.append(text.removesuffix(";"))
    return f"verified: {'; '.join(found)} (holdfast verify --last)" if found else ""


def progress_line(progress: dict[str, Any]) -> str:
    """``cloning from m2: 1.2 GB of 4.0 GB (30 %), 110 MB/s, 26 s left``."""
    done, total, rate = progress["done"], progress["total"], progress["rate"]
    parts = []
    if total:
        parts.append(f"{amount(done)} of {amount(total)} ({done * 100 // total} %)")
    elif done:
        parts.append(amount(done))
    if rate:
        parts.append(f"{amount(rate)}/s")
        if total:
            parts.append(f"{duration(max(0, total - done) / rate)} left")
    return f"{progress['what']}: {', '.join(parts)}" if parts else str(progress["what"])


def kept_by(members: Sequence[dict[str, Any]]) -> str:
    """What ends a server whose lease is over: ``leases are kept by agent, keeper (m1, m2); agent (m3)``."""
    found: dict[str, list[str]] = {}
    for member in members:
        protections = member.get("protections")
        text = "unknown" if protections is None else ", ".join(protections) or "nobody"
        found.setdefault(text, []).append(member["name"])
    if not found or [*found] == ["unknown"]:
        return ""
    if len(found) == 1:
        return f"leases are kept by {next(iter(found))}"
    groups = [f"{text} ({', '.join(names)})" for text, names in found.items()]
    return f"leases are kept by {'; '.join(groups)}"


def amount(count: float) -> str:
    """Bytes, in a readable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _stage(member: dict[str, Any]) -> str:
    stage = str(member.get("stage") or "")
    return "" if stage == member["role"] else stage


def _behind(member: dict[str, Any]) -> str:
    behind, left = member.get("bytes_behind"), member.get("eta_seconds")
    if member["role"] in ("primary", "voter") or not behind:
        return ""
    return amount(behind) + ("" if left is None else f", {duration(left)} left")


def _zone(member: dict[str, Any]) -> str:
    return str(member.get("zone") or "")


def _priority(member: dict[str, Any]) -> str:
    priority = member.get("priority", 100)
    return "" if priority == 100 else str(priority)


FURTHER: dict[str, Callable[[dict[str, Any]], str]] = {
    "stage": _stage,
    "behind": _behind,
    "zone": _zone,
    "priority": _priority,
}
"""Columns that are shown only when they have content."""


def _print_reasons(console: Any, answer: dict[str, Any]) -> None:
    from rich.text import Text

    if answer.get("whole") and answer["writable"]:
        return
    console.print(
        Text(answer.get("headline") or answer["reason"], style="" if answer["writable"] else "red")
    )
    for member in answer["members"]:
        if member["reason"] and not member.get("told"):
            console.print(Text(f"{member['name']}: {member['reason']}"))
        if member.get("failed") and not member.get("failed_told"):
            failed = f"{member['name']}: refused or failed: {member['failed']}"
            console.print(Text(failed, style="red"))

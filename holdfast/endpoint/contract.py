"""What hooks and webhooks get: exactly MHA's arguments, and one JSON document for all.

The arguments are those of MHA 0.58 (``MasterFailover.pm``, ``MasterRotate.pm``), in its order and no others, because a
script may refuse an argument that it does not know. Three are left out: passwords, which every user of the host could
read in the list of processes; ``--conf``, as there is no such file; and ports of SSH servers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from holdfast.core.calls import Phase, Ran
from holdfast.core.transition import TransitionKind

VERSION = 1
"""Version of the document. Keys are only added to it; removing one needs another version."""

LONGEST_ARGUMENT = 30_000
"""In characters; Linux allows 128 KB for one argument, and no NUL. The document contains the full text."""


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """A server. :ivar ip: of ``host``, or ``host`` itself while that is not known"""

    name: str
    host: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class PrimaryChange:
    """:ivar kind: FAILOVER or SWITCHOVER
    :ivar old, new: primaries; the same one, where it takes writes again because no other member was named
    :ivar reachable: the old one's agent answers
    :ivar replicas: those that follow ``new``
    """

    cluster: str
    kind: TransitionKind
    term: int
    old: MemberPlace
    new: MemberPlace | None = None
    reachable: bool = False
    replicas: tuple[MemberPlace, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HookLogin:
    """What MHA's configuration calls ``ssh_user`` and ``user``."""

    ssh_user: str
    user: str


def command(phase: Phase, change: PrimaryChange) -> str:
    """The command as MHA names it: ``stopssh`` for a failover where the old primary's host can still be reached."""
    if phase is Phase.STOP and change.kind is TransitionKind.FAILOVER and change.reachable:
        return "stopssh"
    return phase.value


def hooks_of(phase: Phase, change: PrimaryChange) -> tuple[str, ...]:
    """The hooks to call, in this order."""
    if change.kind is TransitionKind.SWITCHOVER:
        return ("switchover",)
    return ("failover", "shutdown") if phase is Phase.STOP else ("failover",)


def arguments(hook: str, asked: str, change: PrimaryChange, login: HookLogin) -> list[str]:
    match hook:
        case "failover":
            return _failover(asked, change, login)
        case "switchover":
            return _switchover(asked, change, login)
        case "shutdown":
            return _shutdown(asked, change, login)
    raise ValueError(hook)


def report_arguments(change: PrimaryChange, subject: str, body: str) -> list[str]:
    found = [f"--orig_master_host={change.old.host}"]
    if change.new and change.new != change.old:
        slaves = ",".join(place.host for place in change.replicas)
        found += [f"--new_master_host={change.new.host}", f"--new_slave_hosts={slaves}"]
    texts = (f"--subject={subject}", f"--body={body}")
    return found + [each.replace("\0", "?")[:LONGEST_ARGUMENT] for each in texts]


def document(
    asked: str, change: PrimaryChange, at: float, ran: Sequence[Ran] = (), **further: Any
) -> bytes:
    """The document for a hook's standard input, and for a webhook.

    :param at: seconds since 1970; :param ran: hooks that were called on the way
    """
    told: Mapping[str, Any] = {
        "version": VERSION,
        "id": f"{change.cluster}-{change.term}-{change.kind}-{asked}",
        "event": change.kind.value,
        "command": asked,
        "cluster": change.cluster,
        "term": change.term,
        "at": round(at, 3),
        "reason": change.reason,
        "old_primary": asdict(change.old) | {"reachable": change.reachable},
        "new_primary": asdict(change.new) if change.new else None,
        "replicas": [asdict(place) for place in change.replicas],
        "hooks": [asdict(each) for each in ran],
        **further,
    }
    return json.dumps(told).encode()


def without_output(ran: Sequence[Ran]) -> tuple[Ran, ...]:
    """For receivers outside: a script's output is for the cluster's operators."""
    return tuple(replace(each, output="") for each in ran)


def _failover(asked: str, change: PrimaryChange, login: HookLogin) -> list[str]:
    ssh_user = f"--ssh_user={login.ssh_user}"
    old = _place("orig", change.old)
    match asked:
        case "stop":
            return [*old, "--command=stop"]
        case "stopssh":
            return [*old, "--command=stopssh", ssh_user]
        case "status":
            return ["--command=status", ssh_user, *old]
    new = change.new or change.old
    return [
        f"--command={asked}",
        ssh_user,
        *old,
        *_place("new", new),
        f"--new_master_user={login.user}",
    ]


def _switchover(asked: str, change: PrimaryChange, login: HookLogin) -> list[str]:
    new = change.new or change.old
    users = (
        f"--orig_master_ssh_user={login.ssh_user}",
        f"--new_master_ssh_user={login.ssh_user}",
        "--orig_master_is_new_slave",
    )
    return [
        f"--command={asked}",
        *_place("orig", change.old),
        f"--orig_master_user={login.user}",
        *_place("new", new),
        f"--new_master_user={login.user}",
        *users,
    ]


def _shutdown(asked: str, change: PrimaryChange, login: HookLogin) -> list[str]:
    old = change.old
    ssh_user = [] if asked == "stop" else [f"--ssh_user={login.ssh_user}"]
    return [
        f"--command={asked}",
        *ssh_user,
        f"--host={old.host}",
        f"--ip={old.ip}",
        f"--port={old.port}",
    ]


def _place(which: str, place: MemberPlace) -> list[str]:
    return [
        f"--{which}_master_host={place.host}",
        f"--{which}_master_ip={place.ip}",
        f"--{which}_master_port={place.port}",
    ]

"""Injects a fault into a lab, and heals it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from holdfast.errors import HoldfastError, Refused
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import CLIENT
from holdfast.sandbox.local.spec import CLUSTER
from tests.chaos import store
from tests.chaos.faults import STEPS_SECONDS, Fault, Harm, Lane, Role
from tests.chaos.hands import Hands

PATIENCE_SECONDS = 10.0
BACK_SECONDS = 30.0
"""How long the test tries to put a setting back, while managers are harmed too."""
BUSY = "while True: pass"


@dataclass(frozen=True, slots=True)
class Done:
    """:ivar hosts: the hosts that were hit; :ivar primary: the primary was among them"""

    hosts: tuple[str, ...]
    primary: bool
    undo: Callable[[], None]


def victims(lab: Lab, fault: Fault) -> tuple[tuple[str, ...], bool]:
    """The hosts that have the role now, and whether the primary is among them.

    :raises HoldfastError: no host has it
    """
    members = tuple(member.name for member in lab.members())
    managers = tuple(host for host in lab.hosts() if host.startswith("manager"))
    nodes = tuple(host for host in lab.hosts() if host.startswith("etcd"))
    drawn: Sequence[str]
    match fault.role:
        case Role.MEMBERS:
            return members, True
        case Role.MANAGERS:
            return managers, False
        case Role.NODES:
            return nodes, False
        case Role.NOBODY:
            return (), False
        case Role.PRIMARY:
            return (lab.primary(),), True
        case Role.REPLICA:
            primary = lab.primary()
            drawn = [name for name in members if name != primary]
        case Role.LEADER:
            leader = lab.leader()
            drawn = [leader] if leader else managers
        case Role.MANAGER:
            drawn = managers
        case Role.NODE:
            drawn = nodes
    if not drawn:
        raise Refused(f"there is no {fault.role}")
    return (drawn[int(fault.draw * len(drawn))],), False


SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("durability", "all", "majority"),
    ("members.m2.voter", "false", "true"),
    ("members.m1.priority", "5", "1"),
    ("mode", "semi-sync", "strong"),
    ("mode", "async", "strong"),
)
"""A setting, its value for a while, and its value afterwards. Nothing may be lost: without ``allow_loss`` no member
takes over in a weaker mode."""


def do(lab: Lab, fault: Fault, hosts: tuple[str, ...], primary: bool, hands: Hands) -> Done:
    """:raises HoldfastError: it could not be done to any of them"""
    if fault.harm is Harm.CPU:
        return Done((), False, _busy())
    if fault.harm is Harm.SWITCHOVER:
        return Done((), False, _asked(lab, "switch_over", seconds=PATIENCE_SECONDS))
    if fault.harm is Harm.SETTING:
        return Done((), False, _setting(lab, SETTINGS[int(fault.draw * len(SETTINGS))]))
    if fault.harm is Harm.CLONE:
        return Done(hosts, False, _asked(lab, "clone_member", hosts[0]))
    if fault.harm is Harm.MEMBER:
        return Done(hosts, False, hands.members.take_out(hosts[0]))
    if fault.lane is Lane.HANDS:
        return Done(hosts, primary, hands.do(fault, hosts[0]))
    undos: list[Callable[[], None]] = []
    failed: HoldfastError | None = None
    for host in hosts:
        try:
            undos.append(_do(lab, fault, host))
        except HoldfastError as error:
            failed = error
    if failed and not undos:
        raise failed

    def undo() -> None:
        for each in undos:
            each()

    return Done(hosts, primary, undo)


def _asked(lab: Lab, what: str, *words: Any, **more: Any) -> Callable[[], None]:
    """Order it from the leading manager: refused, begun, undone, carried out, or never answered."""

    def order() -> None:
        with suppress(HoldfastError), lab.inside():
            getattr(lab.manager(), what)(CLUSTER, *words, **more)

    threading.Thread(target=order, name=what, daemon=True).start()
    return _nothing


def _setting(lab: Lab, change: tuple[str, str, str]) -> Callable[[], None]:
    key, there, back = change
    _asked(lab, "change_settings", {key: there})

    def undo() -> None:
        end = time.monotonic() + BACK_SECONDS
        while True:
            try:
                with lab.inside():
                    lab.manager().change_settings(CLUSTER, {key: back})
                return
            except HoldfastError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    return undo


def _do(lab: Lab, fault: Fault, host: str) -> Callable[[], None]:
    members = ",".join(each.name for each in lab.members() if each.name != host)
    managers = ",".join(each for each in lab.hosts() if each.startswith("manager"))
    nodes = ",".join(each for each in lab.hosts() if each.startswith("etcd"))
    member = host in [each.name for each in lab.members()]

    def healing(b: str) -> Callable[[], None]:
        return lambda: lab.heal(host, b)

    match fault.harm:
        case Harm.KILL_SERVER:
            lab.kill_server(host)
            return _nothing
        case Harm.FREEZE_SERVER:
            lab.freeze_server(host)
            return lambda: lab.thaw_server(host)
        case Harm.FREEZE_HOST:
            lab.freeze(host)
            return lambda: lab.thaw(host)
        case Harm.KILL_HOST:
            lab.kill_host(host)
            return lambda: lab.start_host(host)
        case Harm.KILL_DAEMON:
            kill = lab.kill_agent if member else lab.kill_manager
            (lab.kill_etcd if host in nodes else kill)(host)
            return lambda: lab.start_host(host)
        case Harm.STOP_DAEMON:
            lab.stop_manager(host)
            return lambda: lab.start_host(host)
        case Harm.POWER_CUT:
            lab.cut_power(host)
            return lambda: lab.start_host(host)
        case Harm.HANG_AGENT:
            lab.hang_agent(host)
            return lambda: lab.cont_agent(host)
        case Harm.PUT_BACK:
            store.put_back(lab, fault.draw)
            return lambda: store.repair(lab)
        case Harm.CLOCK:
            lab.set_clock(host, STEPS_SECONDS[int(fault.draw * len(STEPS_SECONDS))])
            return lambda: lab.set_clock(host, 0)
        case Harm.DISK_FULL:
            lab.disk_full(host)
            return lambda: lab.disk_free(host)
        case Harm.DISK_STALL:
            lab.disk_stall(host)
            return lambda: lab.disk_go(host)
        case Harm.CUT_ALL:
            lab.cut(host, "all")
            return healing("all")
        case Harm.MUTE:
            lab.cut(host, "all", one_way=True)
            return healing("all")
        case Harm.DEAF:
            lab.cut("all", host, one_way=True)
            return healing("all")
        case Harm.LOSS:
            lab.loss(host, "all", fault.share)
            return healing("all")
        case Harm.DELAY:
            lab.delay(host, "all", fault.ms)
            return healing("all")
        case _:
            far = {
                Harm.CUT_MANAGERS: managers,
                Harm.CUT_MEMBERS: members,
                Harm.CUT_ETCD: nodes,
                Harm.CUT_CLIENT: CLIENT,
            }[fault.harm]
            lab.cut(host, far)
            return healing(far)


def heal_all(lab: Lab, hands: Hands) -> None:
    """Heal everything that is left: the network, frozen processes, disks, processes that do not run, the store, and
    what only operators can repair."""
    lab.heal()
    for host in lab.hosts():
        with suppress(HoldfastError):
            lab.thaw(host)
    for member in lab.members():
        for undo in (lab.disk_go, lab.disk_free, lab.thaw_server, lab.cont_agent):
            with suppress(HoldfastError):
                undo(member.name)
    for host in lab.hosts():
        lab.set_clock(host, 0)
        if host != CLIENT:
            lab.start_host(host)
    with suppress(HoldfastError):
        store.repair(lab)
    hands.mend()


def _nothing() -> None:
    pass


def _busy(processes: int = 2) -> Callable[[], None]:
    children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]

    def undo() -> None:
        for child in children:
            child.kill()
            child.wait()

    return undo

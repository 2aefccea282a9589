"""A virtual address: its configuration, when it belongs to a host, and the lifetime that the kernel gets."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.agent.lease.gate import listens_at
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.vip.claim import RENEW_UNATTENDED_SECONDS, UNATTENDED_SECONDS, Claim
from holdfast.agent.vip.supervisor import Address, belongs
from holdfast.config.complaint import validated
from holdfast.config.schema import AgentConfig
from holdfast.config.vip import VipConfig
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from holdfast.errors import BadInput
from holdfast.server.process.process import Running

LEASE = 1.2
LINGER = 300.0
VIP = {"address": "192.0.2.10/24", "interface": "eth0"}


def agent(vip: object) -> AgentConfig:
    account = {"user": "u", "password_file": "p"}
    server = {
        "flavor": "mariadb",
        "command": ["mariadbd"],
        "option_file": "my.cnf",
        "datadir": "data",
        "socket": "sock",
        "binlog_index": "index",
        "admin": account,
    }
    file = {
        "cluster": "c",
        "name": "m1",
        "listen": "127.0.0.1:7401",
        "token_file": "token",
        "state_dir": "state",
        "server": server,
        "replication": account,
        "vip": vip,
    }
    return validated(AgentConfig, file, "agent.yaml")


# -- the file --------------------------------------------------------------------------------------


def test_one_address_or_several() -> None:
    (one,) = agent(VIP).vip
    assert (one.address, one.interface, one.ip, one.linger) == (
        "192.0.2.10/24",
        "eth0",
        "192.0.2.10",
        LINGER,
    )
    six = {"address": "2001:db8::10/64", "interface": "eth0", "linger": "1m"}
    both = agent([VIP, six]).vip
    assert [each.ip for each in both] == ["192.0.2.10", "2001:db8::10"]
    assert both[1].linger == 60


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"address": "192.0.2.10"}, "ADDRESS/BITS"),
        ({"address": "192.0.2.300/24"}, "ADDRESS/BITS"),
        ({"address": "192.0.2.0/24"}, "names the network"),
        ({"address": "192.0.2.255/24"}, "broadcast"),
        ({"address": "127.0.0.1/8"}, "clients on other hosts"),
        ({"address": "fe80::1/64"}, "clients on other hosts"),
        ({"address": "224.0.0.1/24"}, "clients on other hosts"),
        ({"interface": "a/b"}, "interface"),
        ({"interface": "sixteencharacter"}, "interface"),
        ({"linger": "-1s"}, "linger"),
        ({"linger": "for ever"}, "duration"),
        ({"netmask": 24}, "netmask"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match="vip") as refused:
        agent(VIP | changed)
    assert why in str(refused.value)


@pytest.mark.parametrize("address", ["192.0.2.10/32", "192.0.2.0/31", "2001:db8::10/128"])
def test_a_host_alone_is_a_network_too(address: str) -> None:
    assert VipConfig(address=address, interface="eth0").address == address


def test_an_address_is_given_once() -> None:
    with pytest.raises(BadInput, match="twice"):
        agent([VIP, VIP | {"interface": "eth1"}])
    with pytest.raises(ValidationError):
        VipConfig.model_validate({"address": "192.0.2.10/24"})


# -- when it belongs to a host ----------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Running]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield Running(process.pid, os.pidfd_open(process.pid), "run", True)
    process.kill()
    process.communicate()


OPEN = MemberState("m1", Flavor.MARIADB, server=ServerStatus.UP, incarnation="run", writable=True)


def test_it_belongs_to_the_open_primary_alone(running: Running) -> None:
    assert belongs(OPEN, running) is True
    assert belongs(OPEN, None) is False, "open, and held to no lease"
    assert belongs(replace(OPEN, writable=False), running) is False, "frozen for a switchover"
    assert belongs(replace(OPEN, incarnation="another"), running) is False
    for gone in (ServerStatus.DOWN, ServerStatus.DYING):
        assert belongs(replace(OPEN, server=gone), running) is False


def test_of_a_server_that_was_not_asked_yet_nothing_is_known(running: Running) -> None:
    """A restarted agent finds its primary running: the address stays as it is until the first look."""
    found = replace(OPEN, server=ServerStatus.STARTING, writable=False)
    assert belongs(found, running) is None
    assert belongs(found, None) is False, "another one than the lease was kept for"


def test_it_goes_when_writes_have_stopped_whatever_a_look_of_before_says(running: Running) -> None:
    published = PublishedState(OPEN)
    address = Address(
        VipConfig(address="192.0.2.10/24", interface="eth0"),
        published,
        BackgroundWriter(),
        lambda failed: None,
    )
    address._channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told: list[str] = []

    def heard() -> str:
        while True:
            try:
                told.append(its.recv(100, socket.MSG_DONTWAIT).decode().partition(" ")[0])
            except BlockingIOError:
                return told[-1]

    with address._channel, its:
        address.arm(running, 10.0)
        assert heard() == "hold"
        published.change(stopped=3)
        address.changed()
        assert heard() == "drop"
        published.change(writable=True)
        address.changed()
        address.extend(11.0)
        assert told == ["hold", "drop"]
        published.change(stopped=0)
        address.changed()
        assert heard() == "hold", "it goes on"


# -- lifetimes --------------------------------------------------------------------------------------


def test_it_is_held_no_longer_than_the_lease() -> None:
    claim = Claim(LINGER)
    assert not claim.holds(0.0)
    claim.held(10 + LEASE)
    assert claim.holds(11.199)
    assert not claim.holds(11.2)
    claim.renewal(10.0)
    assert claim.next(10.0) == 10 + LEASE


def test_the_lifetime_in_the_kernel_follows_the_lease_and_is_given_anew_with_it_only() -> None:
    claim = Claim(LINGER)
    for now in (10.0, 10.25, 10.5):
        claim.held(now + LEASE)
        assert claim.renewal(now) == 1
        assert claim.renewal(now + 0.2) is None, "it would outlast the lease"
    claim.held(20 + 3.9)
    assert claim.renewal(20.0) == 3


def test_nothing_is_given_once_the_lease_is_over() -> None:
    claim = Claim(LINGER)
    claim.held(10.0)
    assert claim.renewal(10.0) is None
    claim.held(20.0)
    claim.dropped()
    assert claim.renewal(15.0) is None
    assert claim.next(15.0) is None


def test_without_its_agent_it_stays_for_a_while() -> None:
    claim = Claim(LINGER)
    claim.held(10 + LEASE)
    claim.abandoned(10.5)
    assert claim.renewal(10.5) == UNATTENDED_SECONDS
    assert claim.renewal(10.6) is None
    assert claim.next(10.6) == 10.5 + RENEW_UNATTENDED_SECONDS
    assert claim.renewal(10.5 + RENEW_UNATTENDED_SECONDS) == UNATTENDED_SECONDS
    assert claim.holds(10.4 + LINGER)
    assert not claim.holds(10.5 + LINGER)


def test_without_its_agent_it_goes_with_the_server() -> None:
    claim = Claim(LINGER)
    claim.held(10 + LEASE)
    claim.abandoned(10.5)
    claim.dropped()
    assert not claim.holds(10.6)


def test_what_was_over_is_not_begun_anew_by_the_end_of_the_agent() -> None:
    claim = Claim(LINGER)
    claim.held(10.0)
    claim.abandoned(10.1)
    assert not claim.holds(10.1)
    assert claim.until == 10.0
    dropped = Claim(LINGER)
    dropped.abandoned(0.0)
    assert dropped.until == -math.inf


def test_who_has_no_agent_yields_to_another_host_and_who_has_one_does_not() -> None:
    claim = Claim(LINGER)
    claim.held(10 + LEASE)
    claim.contested()
    assert claim.holds(10.5), "the lease decides"
    claim.abandoned(10.5)
    claim.contested()
    assert not claim.holds(10.6)


# -- alarms -----------------------------------------------------------------------------------------


def told(tmp_path: Path, *messages: str) -> list[str]:
    """The alarms after each message of the process that holds it."""
    found: list[str] = []
    published = PublishedState(MemberState("m1", Flavor.MARIADB))
    config = VipConfig(address="192.0.2.10/24", interface="eth0")
    address = Address(config, published, BackgroundWriter(), found.append)
    for each in messages:
        address._heard(*each.partition(" ")[::2])
    return found


def test_each_trouble_is_told_and_taken_back_by_itself(tmp_path: Path) -> None:
    trouble = "the virtual address 192.0.2.10 cannot be put on: eth0 is down"
    rival = "the virtual address 192.0.2.10: 02:00:00:00:00:01 on the same network claims it, too"
    assert told(
        tmp_path,
        f"trouble {trouble}",
        f"trouble {trouble}",
        "rival 02:00:00:00:00:01",
        "trouble ",
        "rival ",
    ) == [trouble, f"{trouble}; {rival}", rival, ""]


def test_a_server_that_does_not_listen_on_it_is_seen() -> None:
    script = """
import socket, sys
listeners = [socket.create_server((host, 0), family=family) for host, family in (
    ("127.0.0.2", socket.AF_INET), ("::1", socket.AF_INET6))]
if sys.argv[1:]:
    listeners.append(socket.create_server((sys.argv[1], 0), family=socket.AF_INET))
print(flush=True)
input()
"""
    for extra, everywhere in (((), False), (("0.0.0.0",), True)):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *extra], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        assert listens_at(process.pid, "127.0.0.2")
        assert listens_at(process.pid, "::1")
        assert listens_at(process.pid, "192.0.2.10") is everywhere
        assert not listens_at(process.pid, "2001:db8::10")
        process.communicate(b"\n")

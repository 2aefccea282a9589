"""How a manager checks a switchover that is ordered: which agents it asks, how often, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.core.change.preflight import SwitchoverOrder
from holdfast.core.check.facts import Facts
from holdfast.core.gtid import Flavor
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.switchover import Switching
from tests.unit.core.change.test_readiness import BY_STATEMENT, three
from tests.unit.core.check.test_check import running
from tests.unit.manager.people.test_members import managed
from tests.unit.memory_agent import MemoryAgent

HELD = Blocker(17, "app", "web1", Holds.TRANSACTION, 12.0, "UPDATE t SET a = 1")


class Hosts:
    """What agents answer of their hosts.

    :ivar asked: the members whose facts were requested, in order
    :ivar blocking: answers of the primary, one after the other; the last again and again
    """

    def __init__(self, leader: Leader) -> None:
        self.found: dict[str, Facts | HoldfastError] = dict(three(Flavor.MYSQL))
        self.asked: list[str] = []
        self.blocking: list[Sequence[Blocker] | HoldfastError] = [()]
        for name, agent in leader.agents.items():
            self._answer(name, agent)

    def _answer(self, name: str, agent: Any) -> None:
        async def facts(counting: bool) -> Facts:
            assert not counting, "a server may have very many tables"
            self.asked.append(name)
            answer = self.found[name]
            if isinstance(answer, HoldfastError):
                raise answer
            return answer

        async def blockers(seconds: float) -> Sequence[Blocker]:
            answer = self.blocking.pop(0) if len(self.blocking) > 1 else self.blocking[0]
            if isinstance(answer, HoldfastError):
                raise answer
            return answer

        agent.facts, agent.blockers = facts, blockers


def spoil(hosts: Hosts, name: str) -> None:
    hosts.found[name] = running(three(Flavor.MYSQL)[name], binlog_format="STATEMENT")


def test_who_is_named_is_asked_and_else_whoever_may_take_over(tmp_path: Path) -> None:
    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            hosts = Hosts(it.leader)
            assert (await Switching(it.leader).look(SwitchoverOrder("m2"))).against == ()
            assert sorted(hosts.asked) == ["m1", "m2"]
            spoil(hosts, "m2")
            assert (await Switching(it.leader).look(SwitchoverOrder())).to == "m3"
            with pytest.raises(Refused) as refused:
                await Switching(it.leader).begin(SwitchoverOrder("m2", wait=True))
            assert str(refused.value) == BY_STATEMENT
            begun = await Switching(it.leader).begin(SwitchoverOrder())
            assert begun.to == "m3"
            told = [each.text for each in await it.leader.events.since(begun.event, 0.0)]
            assert f"a switchover will begin, by an operator; passed over: {BY_STATEMENT}" in told

    asyncio.run(run())


def test_while_it_waits_hosts_are_asked_at_first_and_before_it_begins(tmp_path: Path) -> None:
    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            hosts = Hosts(it.leader)
            hosts.blocking = [(HELD,), (HELD,), (HELD,), ()]
            await Switching(it.leader).begin(SwitchoverOrder("m3", wait=True))
            assert sorted(hosts.asked) == ["m1", "m1", "m3", "m3"]

    asyncio.run(run())


def test_what_went_wrong_meanwhile_is_found_before_it_begins(tmp_path: Path) -> None:
    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            hosts = Hosts(it.leader)
            hosts.blocking = [(HELD,), ()]
            begun = asyncio.create_task(
                Switching(it.leader).begin(SwitchoverOrder("m2", wait=True))
            )
            while "m2" not in hosts.asked:
                await asyncio.sleep(0)
            spoil(hosts, "m2")
            with pytest.raises(Refused, match="binlog_format is STATEMENT"):
                await begun
            assert not it.leader.status().under_way

    asyncio.run(run())


@pytest.mark.parametrize("error", [Refused("no"), Unreachable("no answer from its server")])
def test_a_primary_that_cannot_tell_what_its_clients_do_stands_against_it(
    error: HoldfastError, tmp_path: Path
) -> None:
    """Together with all other obstacles, as in :func:`objections`."""

    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            hosts = Hosts(it.leader)
            hosts.blocking = [error]
            spoil(hosts, "m2")
            outlook = await Switching(it.leader).look(SwitchoverOrder("m2"))
            told = [each.text for each in outlook.against]
            assert told == [BY_STATEMENT, f"what clients do on m1 is not known: {error}"]

    asyncio.run(run())


def test_a_host_that_does_not_answer_stands_against_it_and_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            hosts = Hosts(it.leader)
            hosts.found["m2"] = Unreachable("agent of m2: no answer in time")
            with pytest.raises(Refused, match="cannot tell whether it may take over"):
                await Switching(it.leader).begin(SwitchoverOrder("m2"))
            begun = asyncio.create_task(
                Switching(it.leader).begin(SwitchoverOrder("m2", wait=True))
            )
            while hosts.asked.count("m2") < 3:
                assert not begun.done()
                await asyncio.sleep(0.01)
            hosts.found |= three(Flavor.MYSQL)
            assert (await begun).to == "m2"

    asyncio.run(run())


def test_a_candidate_that_would_not_let_the_others_in_is_refused_beforehand(tmp_path: Path) -> None:
    async def run() -> None:
        async with managed(tmp_path / "store") as it:
            Hosts(it.leader)
            m3 = cast(MemoryAgent, it.leader.agents["m3"])
            m3.not_let_in["m2"] = "m2:3306 does not let repl_m3 in: Access denied"
            switching = Switching(it.leader)
            with pytest.raises(Refused, match="m2: the host of m3 could not replicate from it"):
                await switching.begin(SwitchoverOrder("m2"))
            assert (await switching.look(SwitchoverOrder())).to == "m3"

    asyncio.run(run())

"""Two agents behind one address: each answer looks right, and neither may be believed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import cast

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Seen, Unseen
from holdfast.http.wire import StateReply
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.agents.observe import TWINS_SECONDS, AgentObserver
from tests.unit.hand_clock import PacedClock


class Answering:
    """Stands for ``AgentClient``: one run of an agent answers after the other."""

    def __init__(self, runs: Iterator[str]) -> None:
        self._runs = runs

    async def state(self, since: int | None, wait: float) -> StateReply:
        await asyncio.sleep(0.002)
        state = MemberState("m1", Flavor.MARIADB)
        return StateReply(state=state, version=time.monotonic_ns(), run=next(self._runs))


async def seen(observer: AgentObserver, kind: type[Seen] | type[Unseen]) -> Seen | Unseen:
    end = time.monotonic() + 5
    while not isinstance(found := observer.view().members["m1"], kind) or (
        isinstance(found, Unseen) and not found.asked
    ):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.005)
    return found


def observed(
    runs: Iterator[str],
    kind: type[Seen] | type[Unseen],
    again: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    async def scenario() -> str:
        observer = AgentObserver(clock)
        observer.watch("m1", cast(AgentClient, Answering(runs)))
        watching = asyncio.create_task(observer.run())
        try:
            found = await seen(observer, kind)
            await asyncio.sleep(0.1)
            assert isinstance(observer.view().members["m1"], kind)
            if again:
                await seen(observer, Seen)
            return found.reason if isinstance(found, Unseen) else ""
        finally:
            watching.cancel()

    return asyncio.run(scenario())


def test_agents_that_answer_in_turn_are_not_believed() -> None:
    why = observed(itertools.cycle(["one", "one", "two"]), Unseen)
    assert "two agents answer in turn" in why


def test_an_agent_that_is_started_anew_is_believed() -> None:
    runs = itertools.chain(["one", "one", "two", "two", "three"], itertools.repeat("four"))
    assert observed(runs, Seen) == ""


def test_one_that_stays_alone_is_believed_again() -> None:
    runs = itertools.chain(["one", "two", "one"], itertools.repeat("two"))
    assert "in turn" in observed(runs, Unseen, again=True, clock=PacedClock(TWINS_SECONDS / 0.3))

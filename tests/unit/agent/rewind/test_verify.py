"""How a verification ends early: the cause is in the published state, and on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.verify import UnknownTable, Verifying
from holdfast.agent.runtime.job import Job, Jobs
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.commands import Promise, Verify
from holdfast.core.gtid import Flavor
from holdfast.core.observed.comparison import Verification
from holdfast.core.view import MemberState
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.tls import Credentials
from tests.unit.hand_clock import PacedClock

ASKED = Verify("m1", "http://127.0.0.1:1", ordered=True)


class Member:
    """An agent's part of it, whose server is never queried: ``tables`` is what it does instead.

    :ivar begun: set when that is under way
    """

    def __init__(self, folder: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self.published = PublishedState(MemberState("m2", Flavor.MYSQL), clock)
        self.jobs = Jobs(self.published)
        self.begun = threading.Event()
        self.tables: Callable[[Job], list[str]] = lambda job: []
        made = self

        class Tables(Verifying):
            def _tables(self, job: Job, agent: str) -> list[str]:
                made.begun.set()
                return made.tables(job)

        no_server: Any = None
        self.verifying = Tables(
            self.published,
            self.jobs,
            no_server,
            no_server,
            Fitness(folder, self.published),
            Credentials(),
            folder,
        )

    def verify(self, command: Verify = ASKED) -> None:
        self.verifying.begin(command)
        assert self.begun.wait(5)
        self.begun.clear()

    @property
    def verified(self) -> Verification:
        assert self.jobs.wait(5)
        assert self.published.state.verified is not None
        return self.published.state.verified


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def wait(job: Job) -> list[str]:
    while True:
        job.pause(60)


def test_one_that_is_carried_through_has_no_reason(member: Member) -> None:
    member.verify()
    found = member.verified
    assert found.ended >= found.began > 0
    assert (found.halted, found.failed, found.interrupted) == ("", False, 0)
    assert found.ordered
    assert not found.repair


def test_what_to_try_again_would_not_help_is_over(member: Member) -> None:
    """A mistyped name: the member is as well as before, and the next verification begins anew."""

    def fail(job: Job) -> list[str]:
        raise UnknownTable("there is no table a.b")

    member.tables = fail
    member.verify()
    found = member.verified
    assert (found.halted, found.failed) == ("there is no table a.b", True)
    assert found.ended
    assert member.published.state.reason == ""
    member.verifying.begin(Verify("m1", ASKED.agent, stop=True))
    assert member.verified == found  # as it was reported
    member.tables = lambda job: []
    member.verify()
    assert (member.verified.interrupted, member.verified.failed) == (0, False)


@pytest.mark.parametrize("error", [Refused("no answer in time"), ZeroDivisionError("odd")])
def test_one_that_fails_says_of_what_until_it_goes_on(member: Member, error: Exception) -> None:
    def fail(job: Job) -> list[str]:
        raise error

    member.tables = fail
    member.verify()
    found = member.verified
    assert str(error) in found.halted
    assert (found.failed, found.ended) == (True, 0)
    member.verifying.begin(Verify("m1", ASKED.agent, stop=True))
    stopped = member.verified
    assert stopped.ended
    assert (stopped.halted, stopped.failed) == (found.halted, True), "why it had failed stays"
    member.tables = fail
    member.verify()
    assert member.verified.failed
    member.tables = wait
    member.verify()
    going_on = member.published.state.verified
    assert going_on is not None
    assert (going_on.halted, going_on.failed) == ("", False)
    member.jobs.cancel("the test")
    assert member.verified.interrupted == 1


def test_a_command_interrupts_it_and_an_operator_ends_it(member: Member, tmp_path: Path) -> None:
    member.tables = wait
    member.verify()
    member.verifying.admit(Promise(), Deadline(5))
    found = member.verified
    assert (found.halted, found.failed) == ("called off by the command Promise", False)
    assert found.ended == 0
    again = Member(tmp_path)
    assert again.published.state.verified == found, "the next run of the agent knows it"
    again.tables = wait
    again.verify(Verify("m1", ASKED.agent))
    again.verifying.begin(Verify("m1", ASKED.agent, stop=True))
    stopped = again.verified
    assert stopped.ended
    assert (stopped.halted, stopped.failed) == ("ended by an operator", False)
    assert stopped.ordered, "as it was when it began"


def test_one_that_takes_long_to_end_stays_ended(tmp_path: Path) -> None:
    """On a busy host an operator's end was lost when the work ended later than was waited for: it went on."""
    member = Member(tmp_path, PacedClock(100))
    released = threading.Event()

    def slow(job: Job) -> list[str]:
        released.wait()
        job.check()
        return []

    member.tables = slow
    member.verify()
    member.verifying.begin(Verify("m1", ASKED.agent, stop=True))
    early = member.published.state.verified
    assert early is not None
    assert early.ended
    assert early.halted == "ended by an operator"
    released.set()
    assert member.verified == early
    member.tables = lambda job: []
    member.verify()
    assert (member.verified.halted, member.verified.interrupted) == ("", 0)


def test_an_agent_that_ended_amid_one_says_so(member: Member, tmp_path: Path) -> None:
    member.tables = wait
    member.verify()
    again = Member(tmp_path)  # the first one is as good as killed
    assert again.published.state.verified is not None
    assert again.published.state.verified.halted == "its agent ended"
    member.jobs.cancel("the test")
    assert member.jobs.wait(5)


def test_a_repair_that_is_ordered_while_one_is_under_way_is_noted(member: Member) -> None:
    member.tables = wait
    member.verify()
    member.verifying.begin(Verify("m1", ASKED.agent, repair=True))
    member.jobs.cancel("the test")
    assert member.verified.repair
    member.verifying.forget()
    assert member.published.state.verified is None
    member.tables = lambda job: []
    member.verify()
    assert not member.verified.repair

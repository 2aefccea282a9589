"""One job at a time, whose end is always reported."""

from __future__ import annotations

import threading

import pytest

from holdfast.agent.runtime.job import Job, Jobs
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.observed.progress import Progress
from holdfast.core.view import MemberState
from holdfast.errors import CalledOff, Refused, Unreachable


@pytest.fixture
def published() -> PublishedState:
    return PublishedState(MemberState("m1", Flavor.MYSQL))


def test_a_second_job_is_refused_until_the_first_has_ended(published: PublishedState) -> None:
    jobs, go = Jobs(published), threading.Event()

    def work(job: Job) -> None:
        go.wait(5)

    jobs.start("comparing", work)
    progress = published.state.progress
    assert progress is not None
    assert progress.what == jobs.running == "comparing"
    with pytest.raises(Refused, match="m1 is busy: comparing"):
        jobs.start("cloning", lambda job: None)
    go.set()
    assert jobs.wait(5)
    assert (published.state.progress, published.state.reason, jobs.running) == (None, "", "")
    jobs.start("cloning", lambda job: None)
    assert jobs.wait(5)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unreachable("m2 does not answer"), "m2 does not answer"),
        (OSError(28, "No space left on device"), "No space left"),
        (ZeroDivisionError("unforeseen"), "unforeseen"),
    ],
)
def test_what_it_failed_of_stays_the_reason_until_the_next(
    published: PublishedState, error: Exception, said: str
) -> None:
    def fail(job: Job) -> None:
        raise error

    jobs = Jobs(published)
    jobs.start("cloning from m2", fail)
    assert jobs.wait(5)
    assert said in published.state.reason
    assert published.lasting == published.state.reason
    assert published.state.progress is None
    jobs.start("again", lambda job: None)
    assert jobs.wait(5)
    assert published.lasting == published.state.reason == ""


def test_it_can_be_called_off_while_it_waits_and_when_the_agent_ends(
    published: PublishedState,
) -> None:
    jobs, ended = Jobs(published), []

    def work(job: Job) -> None:
        try:
            job.pause(60)
        except CalledOff as error:
            ended.append(str(error))
            raise

    jobs.start("cloning", work)
    jobs.cancel("a fence")
    assert jobs.wait(5)
    assert ended == ["cloning: called off by a fence"]
    jobs.start("cloning", work)
    jobs.stop()
    assert jobs.wait(5)
    with pytest.raises(Refused, match="stopping"):
        jobs.start("cloning", work)


def test_progress_is_published_at_most_twice_a_second(published: PublishedState) -> None:
    seen: list[Progress | None] = []

    def work(job: Job) -> None:
        for done in range(1, 1000):
            job.progress(done, 1000)
        seen.append(published.state.progress)
        job.stage("preparing")
        seen.append(published.state.progress)

    jobs = Jobs(published)
    jobs.start("cloning", work)
    assert jobs.wait(5)
    assert seen == [Progress("cloning", 1, 1000), Progress("preparing")]

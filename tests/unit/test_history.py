"""The history: what is made of saves, events and looks; how it is written; and what survives managers that end."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.cli.postmortem import told
from holdfast.core import aftermath, chronicle
from holdfast.core.calls import Called, Phase, Ran
from holdfast.core.calls import Outcome as HookOutcome
from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.history import (
    LARGEST_BYTES,
    Candidate,
    Entry,
    HookResult,
    HookRun,
    Moment,
    Outcome,
    Positions,
    Returned,
    Setup,
    Sort,
    What,
    from_json,
    head,
    to_json,
)
from holdfast.core.quorum import Configuration
from holdfast.core.record import Kind, Pause, Record, Step, Transition
from holdfast.core.settings import Mode
from holdfast.core.status import Role
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    Seen,
    SemiSync,
    ServerStatus,
    Tail,
    TailVerdict,
    Unseen,
    View,
)
from holdfast.errors import Conflict, Refused, Unreachable
from holdfast.manager.archive import Archive, Put
from holdfast.manager.configure import Given
from holdfast.manager.events import EventKind, EventLog
from holdfast.manager.history import History
from holdfast.manager.lead import Leader
from holdfast.manager.orders import Orders
from holdfast.store.base import ENTRIES_KEPT, StoredEntry
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.memory_agent import MemoryAgent, managing, until

TEXT = st.text(max_size=40)
MS = st.floats(-1e6, 1e9).map(lambda ms: round(ms, 1))
AT = st.floats(0, 4e9)
MOMENTS = st.builds(
    Moment, MS, st.sampled_from(Sort), TEXT, TEXT, MS, st.dictionaries(TEXT, MS, max_size=3)
)
SETUPS = st.builds(
    Setup, st.integers(0), TEXT, st.lists(TEXT, max_size=4).map(tuple), st.integers(0, 4), TEXT
)
RUNS = st.builds(HookRun, TEXT, TEXT, st.none() | st.integers(-9, 255), MS, TEXT, TEXT)
ENTRIES = st.builds(
    Entry,
    st.sampled_from(What),
    TEXT,
    AT,
    TEXT,
    st.integers(0),
    number=st.integers(1, 10**6),
    new=TEXT,
    ordered=TEXT,
    managers=st.lists(TEXT, max_size=3).map(tuple),
    named=st.none() | AT,
    opened=st.none() | AT,
    ended=st.none() | AT,
    whole=st.none() | AT,
    outcome=st.sampled_from(Outcome),
    why=TEXT,
    before=st.none() | SETUPS,
    after=st.none() | SETUPS,
    positions=st.builds(Positions, TEXT, TEXT, TEXT),
    candidates=st.lists(
        st.builds(Candidate, TEXT, st.booleans(), st.booleans(), TEXT, TEXT), max_size=3
    ).map(tuple),
    hooks=st.lists(
        st.builds(HookResult, TEXT, TEXT, TEXT, MS, st.lists(RUNS, max_size=2).map(tuple)),
        max_size=2,
    ).map(tuple),
    moments=st.lists(MOMENTS, max_size=6).map(tuple),
    left_out=st.integers(0),
    returned=st.builds(
        Returned,
        TEXT,
        st.lists(TEXT, max_size=2).map(tuple),
        st.integers(0),
        TEXT,
        st.booleans(),
        st.booleans(),
        st.none() | AT,
    ),
)
ENTRY = Entry(What.FAILOVER, "m1 is gone", 1000.0, "m1", 7)


@given(ENTRIES)
def test_what_was_written_is_read_back(entry: Entry) -> None:
    assert from_json(to_json(entry)) == entry


@given(ENTRIES)
def test_whatever_is_in_an_entry_can_be_told(entry: Entry) -> None:
    lines = told(entry, "c")
    assert str(entry.number) in lines[0]
    assert json.dumps(head(entry))


@given(ENTRIES, st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_no_entry_is_a_value_error_and_nothing_else(
    entry: Entry, data: st.DataObject
) -> None:
    document = json.loads(to_json(entry))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(
        st.none() | st.booleans() | st.integers() | TEXT | st.lists(st.integers(), max_size=2)
    )
    try:
        found = from_json(json.dumps(document))
    except ValueError:
        return
    assert isinstance(found, Entry)
    told(found, "c")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"format": "x"}'])
def test_garbage_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(text)


def test_fields_of_a_later_version_are_passed_over_and_its_format_is_refused() -> None:
    document = json.loads(to_json(ENTRY))
    assert from_json(json.dumps({**document, "mood": "blue"})) == ENTRY
    with pytest.raises(ValueError, match="format 2"):
        from_json(json.dumps({**document, "format": 2}))
    with pytest.raises(ValueError, match="sideways"):
        from_json(json.dumps({**document, "outcome": "sideways"}))


def test_an_entry_never_grows_beyond_what_a_store_takes() -> None:
    entry = ENTRY
    for number in range(1000):
        steps = {f"a part of number {each}": 1.5 for each in range(20)}
        entry = chronicle.noted(entry, 1000 + number, Sort.COMMAND, "ü" * 3000, "m1", number, steps)
    assert len(entry.moments) < 200
    text = to_json(entry)
    assert len(text.encode()) <= LARGEST_BYTES
    kept = from_json(text)
    assert kept.moments[0] == entry.moments[0]
    assert kept.moments[-1] == entry.moments[-1]
    assert len(kept.moments) + kept.left_out == 1000
    assert f"({kept.left_out} lines in the middle were not kept)" in told(kept, "c")[-1]


# made-up saves and looks

MEMBERS = tuple(Member(f"m{n}", f"h{n}", 3306) for n in (1, 2, 3))
CLUSTER = Cluster("c", MEMBERS)
TERM = 7
VOTING = Configuration(frozenset({("m1", "a"), ("m2", "b"), ("m3", "c")}), 1)
CALM = Record(TERM, "m1", 3, (VOTING,), 5)
ELECT = replace(CALM, term=8, transition=Transition(Kind.FAILOVER, Step.ELECT, "m1"))
NAMED = replace(ELECT, primary="m2", transition=Transition(Kind.FAILOVER, Step.OPEN, "m1"))
OVER = replace(NAMED, transition=None)


def server(name: str, applied: str, received: str = "", **more: object) -> Seen:
    incarnation = {"m1": "a", "m2": "b", "m3": "c"}[name]
    state = MemberState(
        name,
        Flavor.MARIADB,
        server=ServerStatus.UP,
        incarnation=incarnation,
        applied=applied,
        received=received or applied,
    )
    return Seen(replace(state, **more), 50.0)  # type: ignore[arg-type]


def down(name: str, last_applied: str, tail: Tail | None = None) -> Seen:
    state = MemberState(name, Flavor.MARIADB, last_applied=last_applied)
    return Seen(replace(state, tail=tail or Tail()), 50.0)


def view(*members: Seen, at: float, **more: object) -> View:
    seen = {each.state.name: each for each in members}
    return View(seen, now=50.0, date=at, **more)  # type: ignore[arg-type]


PROMISED = {"promised": 8, "replication": Replication(applier=True)}


def failing_over(lacking: str = "0-1-100") -> Entry:
    look = view(down("m1", "0-1-103"), server("m2", "0-1-103"), server("m3", lacking), at=1000.004)
    entry = chronicle.begun(
        CALM, ELECT, look, 1000.0, "the server of m1 is gone", "it begins", "", "mgr1"
    )
    look = view(
        down("m1", "0-1-103"),
        server("m2", "0-1-101", "0-1-102", **PROMISED),
        server("m3", lacking, **PROMISED),
        at=1000.02,
    )
    look = replace(look, members={**look.members, "m2": server("m2", "0-1-102", **PROMISED)})
    entry = chronicle.saved(entry, ELECT, NAMED, "m2 takes over", look)
    return chronicle.compared(entry, CLUSTER, ELECT, NAMED, look)


def test_a_failover_from_its_beginning_to_its_end() -> None:
    assert chronicle.begins(CALM, ELECT)
    assert not chronicle.begins(ELECT, NAMED)
    entry = failing_over()
    assert (entry.old, entry.new, entry.outcome) == ("m1", "m2", Outcome.UNDER_WAY)
    assert entry.before == Setup(TERM, "m1", ("m1", "m2", "m3"), 1, "strong")
    assert entry.positions.old == "0-1-103"
    assert entry.positions.new == "0-1-102"
    assert "m2 lacked" in entry.positions.difference
    assert "no client was told that they are committed" in entry.positions.difference
    chosen, other = entry.candidates
    assert (chosen.name, chosen.chosen) == ("m2", True)
    assert chosen.reason == "it had all that m3 had received"
    assert other.reason == "it had received 2 transactions less than m2"
    closed = view(down("m1", "0-1-103"), server("m2", "0-1-102"), at=1000.03)
    assert aftermath.looked(entry, CLUSTER, NAMED, closed) is entry
    opened = view(down("m1", "0-1-103"), server("m2", "0-1-102", writable=True), at=1000.05)
    entry = aftermath.looked(entry, CLUSTER, NAMED, opened)
    assert entry.outage_ms == 50.0
    entry = chronicle.saved(entry, NAMED, OVER, "m2 is open", opened)
    assert (entry.outcome, entry.why) == (Outcome.DONE, "m2 is open")
    assert entry.after == Setup(8, "m2", ("m1", "m2", "m3"), 1, "strong")
    assert entry.live, "m1 is not back, and not every member is well"


def test_what_was_cut_and_where_it_was_saved_is_seen_when_the_old_primary_comes_back() -> None:
    entry = replace(failing_over(), opened=1000.1, outcome=Outcome.DONE, whole=1001.0)
    cut = Tail(TailVerdict.CUT, 8, "/var/pending/x.binlog", 1)
    new = server("m2", "0-1-102", writable=True)
    look = view(down("m1", "0-1-103", cut), new, at=1003.0)
    entry = aftermath.looked(entry, CLUSTER, OVER, look)
    assert entry.returned == Returned("cut", ("/var/pending/x.binlog",), 1)
    assert aftermath.looked(entry, CLUSTER, OVER, look) is entry
    starting = view(server("m1", "0-1-102"), new, at=1004.0)
    assert aftermath.looked(entry, CLUSTER, OVER, starting).live
    follows = {
        "replication": Replication("h2:3306", Receiver.ON, True),
        "semi_sync": SemiSync(replica=True),
    }
    look = view(server("m1", "0-1-102", **follows), new, at=1005.0)
    entry = aftermath.looked(entry, CLUSTER, OVER, look)
    assert entry.returned.following == 1005.0
    assert not entry.live
    text = " ".join(told(entry, "c"))
    assert "1 transaction was cut from its binlog (no client was told that it is committed)" in text
    assert "/var/pending/x.binlog" in text
    assert "it was back after 5.0 s" in text


def test_a_tail_of_an_earlier_term_is_not_of_this_failover() -> None:
    entry = replace(failing_over(), opened=1000.1)
    look = view(down("m1", "0-1-1", Tail(TailVerdict.CUT, 7, "/x", 1)), at=1003.0)
    assert aftermath.looked(entry, CLUSTER, OVER, look).returned.verdict == ""


def test_a_rewind_is_told_with_the_file_of_what_was_taken_back() -> None:
    entry = replace(failing_over(), opened=1000.1)
    saved = Tail(term=8, saved="/var/pending/y.txt", transactions=2)
    look = view(server("m1", "0-1-103", tail=saved), server("m2", "0-1-102"), at=1003.0)
    entry = aftermath.did(aftermath.looked(entry, CLUSTER, OVER, look), "rewind")
    text = " ".join(told(entry, "c"))
    assert "2 transactions were taken back (rewound)" in text
    assert "/var/pending/y.txt" in text


def test_a_failover_that_is_given_up_is_undone_and_the_restart_is_another_entry() -> None:
    restart = replace(ELECT, transition=Transition(Kind.RESTART, Step.OPEN))
    assert chronicle.begins(ELECT, restart)
    look = view(down("m1", "0-1-9"), at=1000.0)
    first = chronicle.begun(CALM, ELECT, look, 1000.0, "m1 is gone", "it begins", "", "mgr1")
    why = "no recovery quorum; m1 must come back"
    first = chronicle.gave_way(first, ELECT, restart, why, look)
    assert (first.outcome, first.why, first.live) == (Outcome.UNDONE, why, False)
    second = chronicle.begun(ELECT, restart, look, 1000.5, why, why, "", "mgr1")
    assert second.what is What.RESTART
    back = view(server("m1", "0-1-9", writable=True, incarnation="z"), at=1002.0)
    second = aftermath.looked(second, CLUSTER, restart, back)
    second = chronicle.saved(second, restart, CALM, "m1 is open", back)
    assert (second.outcome, second.outage_ms, second.new) == (Outcome.DONE, 1500.0, "")


def test_a_planned_restart_counts_its_outage_only_once_the_server_has_ended() -> None:
    closing = replace(CALM, transition=Transition(Kind.RESTART, Step.CLOSE))
    running = view(server("m1", "0-1-9", writable=True), at=1000.0)
    entry = chronicle.begun(CALM, closing, running, 1000.0, "why", "why", "a person", "mgr1")
    assert aftermath.looked(entry, CLUSTER, closing, running).opened is None
    refused = chronicle.saved(entry, closing, CALM, "m1 goes on: a commit waits", running)
    assert (refused.outcome, refused.outage_ms) == (Outcome.UNDONE, None)


def test_a_new_primary_that_dies_before_it_was_settled_is_another_failover() -> None:
    again = replace(NAMED, term=9, transition=Transition(Kind.FAILOVER, Step.ELECT, "m2"))
    assert chronicle.begins(NAMED, again)
    look = view(down("m2", "0-1-103"), at=1001.0)
    entry = chronicle.gave_way(failing_over(), NAMED, again, "m2 is gone", look)
    assert entry.outcome is Outcome.REPLACED
    assert entry.live, "what m1 had is not known yet"


def test_a_switchover_counts_from_when_writes_stop() -> None:
    chain = Transition(Kind.SWITCHOVER, Step.CHAIN, wish="m2", ordered=True)
    chained = replace(CALM, term=8, transition=chain)
    frozen = replace(chained, transition=replace(chain, step=Step.FREEZE))
    opening = replace(frozen, primary="m2", transition=replace(chain, step=Step.OPEN))
    members = (server("m1", "0-1-9"), server("m2", "0-1-9", **PROMISED), server("m3", "0-1-9"))
    entry = chronicle.begun(CALM, chained, view(*members, at=1000.0), 1000.0, "w", "w", "", "a")
    assert entry.ordered == "a person has ordered it"
    entry = chronicle.saved(entry, chained, frozen, "freeze", view(*members, at=1002.0))
    look = view(*members, at=1002.006)
    entry = chronicle.saved(entry, frozen, opening, "named", look)
    entry = chronicle.compared(entry, CLUSTER, frozen, opening, look)
    assert entry.positions.difference == "m2 had all that m1 had"
    assert entry.candidates[0].reason.startswith("a person wanted it")
    assert entry.candidates[1].reason == "it could have taken over, but a person wanted m2"
    opened = view(server("m2", "0-1-9", writable=True), at=1002.012)
    entry = aftermath.looked(entry, CLUSTER, opening, opened)
    assert entry.outage_ms == 12.0
    undone = chronicle.saved(
        chronicle.begun(CALM, chained, opened, 1000.0, "w", "w"),
        frozen,
        replace(CALM, term=9),
        "m2 is gone",
        opened,
    )
    assert (undone.outcome, undone.why) == (Outcome.UNDONE, "m2 is gone")


def test_a_primary_that_is_not_seen_was_last_heard_before_it_began() -> None:
    last = server("m1", "0-1-50").state
    unseen = Unseen("no answer", 49.2, last)
    look = View({"m1": unseen}, now=50.0, date=1000.0)
    entry = chronicle.begun(CALM, ELECT, look, 1000.0, "m1 is lost", "it begins")
    assert entry.positions.old == "0-1-50"
    assert entry.moments[0].at_ms == pytest.approx(-800)
    assert "heard no more" in entry.moments[0].text


def test_a_loss_that_was_allowed_is_called_a_loss() -> None:
    lossy = replace(ELECT, mode=Mode.ASYNC)
    lossy = replace(lossy, transition=Transition(Kind.FAILOVER, Step.ELECT, "m1", lossy=True))
    look = view(down("m1", "0-1-103"), server("m2", "0-1-100"), at=1000.0)
    entry = chronicle.begun(CALM, lossy, look, 1000.0, "m1 is gone", "it begins")
    named = replace(NAMED, mode=Mode.ASYNC)
    entry = chronicle.saved(entry, lossy, named, "m2 takes over", look)
    entry = chronicle.compared(entry, CLUSTER, lossy, named, look)
    assert "may have been acknowledged" in entry.positions.difference


def test_results_of_hooks_are_kept_once() -> None:
    ran = (Ran("stop", "stop", 10, 0.2, "moving the address", ""),)
    called = {Phase.STOP: Called(8, HookOutcome.RUNNING), Phase.START: Called(7, HookOutcome.GOOD)}
    look = view(server("m2", "0-1-9"), at=1000.1, called=called)
    entry = failing_over()
    assert aftermath.hooked(entry, look) is entry, "one runs still, the other is of before"
    look = replace(look, called={Phase.STOP: Called(8, HookOutcome.GOOD, "it warned", ran)})
    entry = aftermath.hooked(entry, look)
    assert aftermath.hooked(entry, replace(look, date=1000.2)) is entry
    assert entry.hooks[0].ran == (HookRun("stop", "stop", 10, 0.2, "moving the address", ""),)
    assert any("exit code 10 after 200 ms" in line for line in told(entry, "c"))


# managers

SHORT = {"QUIET_SECONDS": 0.02, "LATER_SECONDS": 0.05, "FIRST_PAUSE": 0.02}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in SHORT.items():
        monkeypatch.setattr(f"holdfast.manager.history.{name}", seconds)


@dataclass
class Flaky:
    """A store whose history does not answer while it is down; its record always does."""

    inner: SqliteStore
    down: bool = False

    def __getattr__(self, name: str) -> object:
        if self.down and name in ("entries", "entry", "write_entry"):
            raise Unreachable("the store does not answer")
        return getattr(self.inner, name)


@dataclass
class Managed:
    leader: Leader
    history: History

    async def entries(self, reached: Callable[[list[Entry]], bool]) -> list[Entry]:
        """Those in the store, oldest first, once they are so."""
        for _ in range(500):
            heads = await self.history.newest(200)
            found = [await self.history.entry(each["number"]) for each in reversed(heads)]
            entries = [each for each in found if each is not None]
            if reached(entries):
                return entries
            await asyncio.sleep(0.02)
        raise AssertionError(entries)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def manager(world: World, store: object, pool: ThreadPoolExecutor, who: str = "mgr1") -> Managed:
    given = Given("c", world.cluster.members)
    leader = Leader(given, lambda member: MemoryAgent(world, member.name, []), store)  # type: ignore[arg-type,return-value]
    archive = Archive(store, "c")  # type: ignore[arg-type]
    history = History(archive, who, leader.events, lambda: leader.decision, pool)
    leader.listeners = (history,)
    return Managed(leader, history)


@asynccontextmanager
async def leading(managed: Managed) -> AsyncIterator[None]:
    async with managing(managed.leader):
        await until(managed.leader, lambda s: s.whole)
        yield


def new_world(flavor: Flavor = Flavor.MARIADB) -> World:
    return World(random.Random(3), 3, flavor)


@pytest.mark.parametrize("flavor", Flavor)
def test_a_failover_is_kept_with_its_course_and_read_by_any_manager(
    flavor: Flavor, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world(flavor)
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            first = manager(world, store, pool)
            async with leading(first):
                assert await first.history.newest(9) == []
                world.hosts["m1"].crash()
                await until(first.leader, lambda s: s.whole and s.primary != "m1")
                (entry,) = await first.entries(lambda all_: bool(all_) and not all_[-1].live)
            other = manager(world, store, pool, "mgr2")
            assert await other.history.entry(1) == entry
            assert entry.outcome is Outcome.DONE
            assert entry.managers == ("mgr1",)
            assert entry.cause == "the server of m1, the primary, is gone"
            assert (entry.old, entry.returned.verdict) == ("m1", "clean")
            course = [entry.begun, entry.named, entry.opened, entry.whole]
            assert course == sorted(each for each in course if each is not None)
            assert entry.returned.following
            done = [(m.member, m.text) for m in entry.moments if m.sort is Sort.COMMAND]
            assert {("m2", "promise"), ("m3", "promise"), (entry.new, "promote")} <= set(done)
            assert {c.name for c in entry.candidates} == {"m2", "m3"}

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4])
def test_a_manager_that_takes_over_in_the_middle_goes_on_with_the_same_entry(
    tmp_path: Path, pool: ThreadPoolExecutor, seconds: float
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            first = manager(world, store, pool)
            first.history.close = _nothing  # type: ignore[method-assign]  # it is killed
            async with leading(first):
                world.hosts["m1"].crash()
                await asyncio.sleep(seconds)
            if first.history._writing:
                first.history._writing.cancel()
            stored = store.load("c")  # as it was when it was killed
            assert stored.record is not None
            over = stored.record.primary != "m1" and chronicle.told(stored.record) is None
            second = manager(world, store, pool, "mgr2")
            async with managing(second.leader):
                after = await until(second.leader, lambda s: s.whole)
                assert {member.role for member in after.members} == {Role.PRIMARY, Role.VOTER}
                # what was over before it was ever written down is not known to anybody
                entries = await second.entries(
                    lambda all_: (over or bool(all_)) and all(not e.live for e in all_)
                )
                failovers = [each for each in entries if each.what is What.FAILOVER]
                assert len(failovers) == 1 or (over and not entries)
                for each in failovers:
                    assert each.outcome is Outcome.DONE
                    assert (each.old, each.new) == ("m1", after.primary)
                    assert each.managers in (("mgr1",), ("mgr2",), ("mgr1", "mgr2"))

    asyncio.run(scenario())


async def _nothing() -> None:
    pass


class Killed(Exception):
    pass


@dataclass
class Killer:
    """Ends its manager right after a record with this step was saved; what was begun may be written before."""

    managed: Managed
    step: Step | None
    archive: Archive | None

    def looked(self, *_: object) -> None:
        pass

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        step = record.transition.step if record.transition else None
        if before and before.transition and step is self.step:
            raise Killed
        if self.archive and step is Step.ELECT:
            self.archive.put(self.managed.history._pages[-1].entry, 0)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("step", [Step.OPEN, None])
def test_an_entry_whose_manager_was_killed_after_a_step_is_completed_by_the_next(
    tmp_path: Path, pool: ThreadPoolExecutor, step: Step | None, written: bool
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            store.write_entry("c", 1, '{"format": 9}', 0)
            first = manager(world, store, pool)
            first.history._soon = lambda _: None  # type: ignore[method-assign]
            first.history.close = _nothing  # type: ignore[method-assign]
            with suppress(Killed):
                async with leading(first):
                    killer = Killer(first, step, Archive(store, "c") if written else None)
                    first.leader.listeners += (killer,)
                    world.hosts["m1"].crash()
                    await asyncio.sleep(0.5)
            assert len(store.entries("c", 9)) == 1 + written
            second = manager(world, store, pool, "mgr2")
            async with managing(second.leader):
                status = await until(second.leader, lambda s: s.whole)
                if step is None and not written:
                    return  # nobody knows of it
                await asyncio.sleep(0.1)
                listed = await second.history.newest(9)
                while listed[0].get("whole") is None:
                    await asyncio.sleep(0.02)
                    listed = await second.history.newest(9)
                entry = await second.history.entry(2)
            assert [each["number"] for each in listed] == [2, 1]
            assert "format 9" in listed[1]["unreadable"]
            assert entry
            assert (entry.outcome, entry.new) == (Outcome.DONE, status.primary)
            assert entry.old == "m1"
            if step is Step.OPEN:
                assert entry.managers == (("mgr1", "mgr2") if written else ("mgr2",))
                assert entry.opened
            else:
                assert "was lost after" in entry.why
            if written:
                assert entry.cause == "the server of m1, the primary, is gone"
                assert entry.before

    asyncio.run(scenario())


def test_a_store_that_is_down_delays_the_history_and_nothing_else(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as inner:
            store = Flaky(inner)
            led = manager(world, store, pool)
            async with leading(led):
                store.down = True
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.whole and s.primary != "m1")
                await asyncio.sleep(0.1)
                assert inner.entries("c", 9) == ()
                store.down = False
                (entry,) = await led.entries(lambda all_: bool(all_) and not all_[0].live)
                assert entry.outcome is Outcome.DONE

    asyncio.run(scenario())


def test_a_manager_that_leads_no_more_shows_what_the_next_one_has_written(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.primary != "m1" and s.writable)
                await led.entries(bool)
            archive = Archive(store, "c")
            stored = archive.get(1)
            assert stored
            archive.put(replace(stored[0], why="of another manager"), stored[1])
            entry = await led.history.entry(1)
            assert entry
            assert entry.why == "of another manager"

    asyncio.run(scenario())


def test_what_breaks_in_the_history_breaks_nothing_else(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                monkeypatch.setattr(chronicle, "saved", broken)
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.whole and s.primary != "m1")

    asyncio.run(scenario())


def test_orders_pauses_and_restarts_are_listed(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                orders = Orders(led.leader)
                await orders.pause("a new switch in rack 3", None)
                await orders.resume()
                entries = await led.entries(lambda all_: len(all_) >= 2)
                texts = [each.cause for each in entries]
                assert texts[0] == "paused until it is resumed: a new switch in rack 3, by a person"
                assert texts[1].startswith("resumed")
                assert {each.what for each in entries} == {What.ORDER}
                assert all(each.ordered and not each.live for each in entries)

    asyncio.run(scenario())


def test_a_pause_that_is_over_by_itself_is_nobodys_order() -> None:
    record = replace(CALM, paused=Pause("x", 1.0))
    entry = chronicle.order("the pause is over (x)", 5.0, record, "mgr1", by_person=False)
    assert entry.ordered == ""


def test_a_manager_that_ends_writes_what_it_has(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                await Orders(led.leader).pause("x", None)
            assert len(store.entries("c", 9)) == 1

    asyncio.run(scenario())


# on its way to the store


def test_entries_get_the_next_number_and_only_the_last_are_kept(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        for number in range(1, ENTRIES_KEPT + 3):
            entry = replace(ENTRY, begun=float(number))
            assert archive.put(entry, 0) == Put(number, 1)
        found = archive.newest(ENTRIES_KEPT)
        assert len(found) == ENTRIES_KEPT
        assert found[-1][0].number == 3
        assert archive.get(2) is None


def test_an_entry_whose_answer_was_lost_is_not_written_twice(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        assert archive.put(ENTRY, 0) == Put(1, 1)
        later = replace(ENTRY, why="later")
        assert archive.put(later, 0) == Put(1, 2), "as if nobody knew of the first"
        numbered = replace(later, number=1)
        assert archive.put(replace(numbered, why="latest"), 1) == Put(1, 3)
        assert len(archive.newest(9)) == 1


def test_an_entry_that_another_manager_goes_on_with_is_left_to_it(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        mine = replace(ENTRY, managers=("mgr1",), number=1)
        archive.put(mine, 0)
        archive.put(replace(mine, managers=("mgr1", "mgr2")), 1)
        with pytest.raises(Conflict):
            archive.put(replace(mine, why="late"), 1)


def test_of_two_managers_that_write_of_the_same_at_once_there_is_one_entry(tmp_path: Path) -> None:
    first = replace(ENTRY, managers=("mgr1",))
    second = replace(ENTRY, managers=("mgr2",), term=8, begun=1001.0, cause="not known")
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        assert Archive(store, "c").put(first, 0) == Put(1, 1)
        late = Archive(store, "c").put(second, 0, taken_over=True)
        assert late == Put(1, 1, replace(first, number=1))
        assert Archive(store, "c").put(second, 0) == Put(2, 1), "another one, which it began itself"
        assert Archive(store, "d").put(second, 0, taken_over=True) == Put(1, 1)
        with pytest.raises(Conflict):
            Archive(store, "d").put(first, 0)


def test_an_entry_that_cannot_be_read_is_listed_and_refused(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        store.write_entry("c", 1, '{"format": 2}', 0)
        assert archive.put(ENTRY, 0) == Put(2, 1)
        (_, entry), (stored, reason) = archive.newest(9)
        assert isinstance(entry, Entry)
        assert stored == StoredEntry(1, '{"format": 2}', 1)
        assert isinstance(reason, str)
        with pytest.raises(Refused, match=re.escape("entry 1 of the history of c cannot be read")):
            archive.get(1)


def test_events_reach_whoever_hears() -> None:
    log, heard = EventLog("c"), []
    log.hearers.append(heard.append)
    log.add(EventKind.ORDERED, "x")
    assert [each.text for each in heard] == ["x"]

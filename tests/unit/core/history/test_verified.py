"""The results of verifications are in the history: one entry for each, with its tables, and never too large."""

from __future__ import annotations

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.show.postmortem import told as postmortem
from holdfast.cli.show.status import verification_line
from holdfast.core.commands import Verify
from holdfast.core.gtid import Flavor
from holdfast.core.history import build
from holdfast.core.history.entry import (
    LARGEST_BYTES,
    Entry,
    Outcome,
    What,
    from_json,
    head,
    to_json,
)
from holdfast.core.history.verified import (
    LONGEST_NAME,
    MOST_TABLES,
    TableVerified,
    Verified,
    halted_or_over,
    merged,
)
from holdfast.core.members import verification
from holdfast.core.observed.comparison import Difference, Verification
from holdfast.core.view import MemberState
from holdfast.errors import Unreachable
from holdfast.http.wire import CommandReply, StateReply
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.manager.listeners.archive import Archive, Put
from holdfast.manager.listeners.history import History
from holdfast.manager.people.verifier import Verifier, VerifyRequest
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.core.history.test_entry import ENTRY
from tests.unit.hand_clock import PacedClock
from tests.unit.looks import RECORD, replica
from tests.unit.memory_agent import MemoryAgent, managing, until

HOUR, DAY = 3600.0, 86_400.0
ODD = (Difference("shop.orders", "id behind 5 up to 9"),)
OVER = Verification(1000.0, 1090.0, "m1", 12, 1, 3400, 0)
DIFFERS = replace(OVER, different=1, ordered=True, repair=True)
HALTED = replace(OVER, ended=0.0, halted="called off by the command Promise", tables=3)
FAILED = replace(HALTED, halted="shop.orders could not be compared", failed=True)
STOPPED = replace(OVER, halted="ended by an operator", ordered=True)
FINE = Verified("m2", "m1", 1000.0, 1090.0, equal=12, skipped=1, rows=3400, since=1000.0)


def findings(**results: dict[str, Any]) -> dict[str, Any]:
    plain = {"rows": 10, "pieces": 1, "different": 0, "ranges": [], "skipped": ""}
    return {"began": 1000.0, "results": {name: {**plain, **each} for name, each in results.items()}}


def entry(found: Verified) -> Entry:
    return build.verification(found, "what came of it", RECORD, "mgr1")


def test_its_tables_are_kept_with_those_that_differ_first() -> None:
    told = findings(
        a={},
        b={"skipped": "its rows are lost at each restart"},
        c={"different": 2, "ranges": ["1", "2"]},
    )
    found = halted_or_over(replica("m2", verified=DIFFERS, differs=ODD), 5000.0, told)
    assert found == Verified(
        "m2",
        "m1",
        1000.0,
        1090.0,
        ordered=True,
        repair=True,
        equal=11,
        different=1,
        skipped=1,
        rows=3400,
        tables=(
            TableVerified("c", 10, "1; 2"),
            TableVerified("b", 10, skipped="its rows are lost at each restart"),
            TableVerified("a", 10),
        ),
        since=1000.0,
    )


@pytest.mark.parametrize("told", [{}, {"began": 2000.0, "results": {}}], ids=["silent", "newer"])
def test_where_its_agent_cannot_tell_the_tables_that_differ_are_those_of_its_state(
    told: dict[str, Any],
) -> None:
    found = halted_or_over(replica("m2", verified=DIFFERS, differs=ODD), 5000.0, told)
    assert found is not None
    assert found.tables == (TableVerified("shop.orders", ranges="id behind 5 up to 9"),)


def test_one_that_was_halted_is_told_with_what_halted_it_and_when() -> None:
    assert halted_or_over(replica("m2"), 5000.0, {}) is None
    under_way = replace(OVER, ended=0.0)
    assert halted_or_over(replica("m2", verified=under_way), 5000.0, {}) is None
    found = halted_or_over(replica("m2", verified=HALTED), 5000.0, {})
    assert found is not None
    assert (found.over, found.ended, found.halted) == (False, 5000.0, HALTED.halted)
    assert (entry(found).outcome, entry(found).why) == (Outcome.UNDONE, HALTED.halted)
    assert entry(FINE).outcome is Outcome.DONE
    assert not entry(found).live


@pytest.mark.parametrize(
    ("verified", "sentence"),
    [
        (replace(OVER, ended=0.0), ""),
        (OVER, "m2 holds the same as m1 in 12 tables (3400 rows); 1 cannot be compared"),
        (
            DIFFERS,
            "m2 differs from m1 in shop.orders (id behind 5 up to 9); 1 cannot be compared",
        ),
        (
            HALTED,
            "the verification of m2 against m1 was interrupted: called off by the command Promise; no difference in 3 "
            "tables so far",
        ),
        (
            replace(FAILED, different=1),
            "the verification of m2 against m1 failed: shop.orders could not be compared; m2 differs from m1 in "
            "shop.orders (id behind 5 up to 9)",
        ),
        (
            STOPPED,
            "the verification of m2 against m1 was ended: ended by an operator; no difference in 12 tables so far",
        ),
    ],
    ids=["under way", "same", "differs", "interrupted", "failed", "ended"],
)
def test_what_came_of_it_in_one_sentence(verified: Verification, sentence: str) -> None:
    differs = ODD if verified.different else ()
    assert verification.told(replica("m2", verified=verified, differs=differs)) == sentence


def test_many_tables_that_differ_are_counted() -> None:
    many = tuple(Difference(f"t{number:02}", "all rows") for number in range(25))
    state = replica("m2", verified=replace(DIFFERS, different=25), differs=many)
    assert verification.told(state).endswith(
        "t19 (all rows) and 5 more tables; 1 cannot be compared"
    )


# -- one entry for each ---------------------------------------------------------------------------


def test_of_one_verification_there_is_one_entry_whatever_becomes_of_it() -> None:
    halted = replace(FINE, over=False, halted="its agent ended")
    assert merged(halted, FINE) == FINE
    assert merged(FINE, FINE) is FINE
    assert merged(FINE, halted) is FINE, "a manager that comes late"
    assert merged(halted, replace(halted, ended=2000.0)) is halted, "by another clock"


def test_uneventful_ones_of_a_day_share_an_entry_and_others_do_not() -> None:
    later = replace(FINE, began=1000.0 + HOUR, ended=1100.0 + HOUR, since=1000.0 + HOUR)
    both = merged(FINE, later)
    assert both == replace(later, repeats=1, since=1000.0)
    latest = replace(later, began=1000.0 + 23 * HOUR)
    assert merged(both, latest) == replace(latest, repeats=2, since=1000.0)
    assert merged(both, replace(later, began=1000.0 + DAY)) is None
    assert merged(both, both) is both, "its answer was lost"
    for eventful in (
        {"ordered": True},
        {"different": 1},
        {"halted": "x"},
    ):
        assert merged(FINE, replace(later, **eventful)) is None
        assert merged(replace(FINE, **eventful), later) is None


def test_entries_of_verifications_in_the_store(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        archive.put(ENTRY, 0)
        halted = replace(FINE, over=False, halted="its agent ended", tables=())
        assert archive.put(entry(halted), 0) == Put(2, 1)
        assert archive.put(entry(replace(FINE, member="m3")), 0) == Put(3, 1)
        archive.put(replace(ENTRY, begun=1001.0), 0)
        assert archive.put(entry(FINE), 0) == Put(2, 2), "the same one, carried through"
        assert archive.put(entry(FINE), 0, taken_over=True) == Put(2, 2), "another manager"
        assert archive.put(entry(replace(FINE, began=1000.0 + HOUR)), 0) == Put(2, 3)
        assert archive.put(entry(replace(FINE, began=2000.0, different=1)), 0) == Put(5, 1)
        stored = archive.get(2)
        assert stored is not None
        assert stored[0].verification == replace(FINE, began=1000.0 + HOUR, repeats=1)
        for number in range(60):
            archive.put(replace(ENTRY, begun=3000.0 + number), 0)
        assert archive.put(entry(FINE), 0, taken_over=True) == Put(0, 0), "told long ago"
        fresh = replace(FINE, began=4000.0, ended=4010.0)
        assert archive.put(entry(fresh), 0, taken_over=True) == Put(66, 1)


def test_an_entry_is_bounded_and_read_back() -> None:
    name = "ä" * 64 + "." + "ö" * 64
    results = {
        f"{name}{number:03}": {"different": 1, "ranges": ["ü" * 300] * 20} for number in range(99)
    }
    state = replica("m2", verified=replace(DIFFERS, different=99, tables=99))
    found = halted_or_over(state, 5000.0, findings(**results))
    assert found is not None
    assert (len(found.tables), found.left_out) == (MOST_TABLES, 99 - MOST_TABLES)
    assert len(found.tables[0].table) <= LONGEST_NAME
    text = to_json(entry(found))
    assert len(text) <= LARGEST_BYTES
    back = from_json(text).verification
    assert back is not None
    assert len(back.tables) + back.left_out == 99
    assert back.tables == found.tables[: len(back.tables)] != ()
    assert from_json(to_json(entry(FINE))) == entry(FINE)


# -- for operators --------------------------------------------------------------------------------


def test_the_post_mortem_tells_tables_ranges_and_what_was_ordered() -> None:
    found = replace(
        FINE,
        ordered=True,
        repair=True,
        different=1,
        interrupted=2,
        tables=(
            TableVerified("shop.orders", 904211, "id behind 5 up to 9"),
            TableVerified("a.b", 7),
        ),
        left_out=3,
    )
    lines = postmortem(replace(entry(found), number=4), "shop")
    assert lines[0] == "Verification 4: what came of it"
    text = " ".join(lines)
    assert "m2 against m1, ordered by an operator, who wants a clone where it differs" in text
    assert "it took 90.0 s" in text
    assert "tables: 12 equal, 1 different, 1 that cannot be compared (3400 rows)" in text
    assert "interrupted 2 times" in text
    assert "  shop.orders  904211  differs: id behind 5 up to 9" in lines
    assert "  a.b          7       same" in lines
    assert "  (3 more tables)" in lines
    brief = head(entry(found))["verification"]
    assert (brief["member"], brief["different"], brief["repair"]) == ("m2", 1, True)
    assert "tables" not in brief


def test_status_has_one_line_of_those_that_found_something_or_failed() -> None:
    def member(name: str, verified: Verification | None, *tables: str) -> dict[str, Any]:
        shown = json.loads(json.dumps(verified and {f: getattr(verified, f) for f in FIELDS}))
        differs = [{"table": table, "ranges": "all rows"} for table in tables]
        return {"name": name, "verified": shown, "differs": differs}

    assert verification_line([member("m2", OVER), member("m3", None), member("m4", HALTED)]) == ""
    line = verification_line(
        [member("m2", replace(DIFFERS, different=7), *"abcdefg"), member("m3", FAILED)]
    )
    assert line.startswith("verified: m2, ")
    assert ", against m1: differs in a, b, c, d, e and 2 more tables; m3, " in line
    assert line.endswith("failed: shop.orders could not be compared (holdfast verify --last)")


FIELDS = Verification.__dataclass_fields__


# -- the manager ----------------------------------------------------------------------------------


class VerifiedAgent(MemoryAgent):
    """Reports any given verification of m2."""

    shown: Verification | None = None
    table_results: dict[str, Any] | None = None

    async def state(self, since: int | None, wait: float) -> StateReply:
        reply = await super().state(since, wait)
        return reply.model_copy(update={"state": self._with(reply.state)})

    async def command(self, *told: Any, **more: Any) -> CommandReply:
        reply = await super().command(*told, **more)
        return reply.model_copy(update={"state": self._with(reply.state)})

    def _with(self, state: MemberState) -> MemberState:
        if state.name != "m2":
            return state
        differs = ODD if self.shown and self.shown.different else ()
        return replace(state, verified=self.shown, differs=differs)

    async def verification(self) -> dict[str, Any]:
        if self.table_results is None:
            raise Unreachable("connection refused")
        return self.table_results


def test_the_manager_keeps_each_that_ends_and_what_it_finds_at_its_beginning(
    tmp_path: Path,
) -> None:
    async def scenario(store: SqliteStore, pool: ThreadPoolExecutor) -> None:
        world = World(random.Random(3), 3, Flavor.MARIADB)
        agents: list[VerifiedAgent] = []

        def connect(member: Any) -> Any:
            agents.append(VerifiedAgent(world, member.name, []))
            return agents[-1]

        async def kept(count: int, repeated: int = 0) -> list[Entry]:
            for _ in range(500):
                found = [e for _, e in Archive(store, "c").newest(9) if isinstance(e, Entry)]
                told = [(e, e.verification) for e in found if e.verification]
                if len(told) == count and told[0][1].repeats >= repeated:
                    return [entry for entry, _ in told]
                await asyncio.sleep(0.01)
            raise AssertionError(found)

        leader = Leader(Given("c", world.cluster.members), connect, store)
        history = History(
            *(Archive(store, "c"), "mgr1", leader.events, lambda: leader.decision, pool),
            PacedClock(50),
        )
        verifier = Verifier(leader, history)
        leader.listeners = (history, verifier)
        VerifiedAgent.shown = OVER
        async with managing(leader):
            await until(leader, lambda s: s.whole)
            (found,) = await kept(1)
            assert found.cause.startswith("m2 holds the same as m1 in 12 tables")
            status = next(each for each in leader.status().members if each.name == "m2")
            assert status.verified == OVER
            VerifiedAgent.table_results = findings(orders={"different": 1, "ranges": ["5 to 9"]})
            VerifiedAgent.table_results["began"] = 2000.0
            await verifier.begin("m2", VerifyRequest(repair=True))
            ordered = [command for _, command in agents[0].asked if isinstance(command, Verify)]
            ordered += [c for each in agents for _, c in each.asked if isinstance(c, Verify)]
            assert ordered[0].ordered
            assert ordered[0].repair
            VerifiedAgent.shown = replace(DIFFERS, began=2000.0, ended=0.0)
            await until(leader, lambda s: any(m.verified and m.verified.repair for m in s.members))
            VerifiedAgent.shown = replace(DIFFERS, began=2000.0, ended=2090.0)
            found = (await kept(2))[0]
            assert found.what is What.VERIFICATION
            assert found.verification is not None
            assert found.verification.tables == (TableVerified("orders", 10, "5 to 9"),)
            assert found.verification.repair
            kinds = [e.kind for e in await leader.events.since(0, 0) if e.member == "m2"]
            assert kinds.count(EventKind.ALARM) == 1
            assert EventKind.VERIFIED not in kinds, "of before it led"
            VerifiedAgent.shown = replace(FAILED, began=3000.0)
            await kept(3)
            texts = [e.text for e in await leader.events.since(0, 0) if e.kind is EventKind.FAILED]
            assert any("shop.orders could not be compared" in text for text in texts)
        await verifier.close()

    try:
        with closing(SqliteStore(tmp_path / "s.db")) as store, ThreadPoolExecutor(2) as pool:
            asyncio.run(scenario(store, pool))
    finally:
        VerifiedAgent.shown = VerifiedAgent.table_results = None

"""No record is saved that breaks a predicate of ``core/quorum.py``; none that follows them is refused
(``tests/model`` asks the same of every record in its storms)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import pytest

from holdfast.core.change.invariants import broken, checked
from holdfast.core.commands import Promise
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.quorum import Configuration, Voter, extendable
from holdfast.core.record import Record, Stray
from holdfast.core.settings import Mode
from holdfast.core.transition import Failover, Step, Strengthen, Switchover
from holdfast.core.view import MemberState, View
from tests.unit.looks import CLUSTER, RECORD, VOTERS, down, primary, replica, view

M2, M3 = ("m2", "a"), ("m3", "a")
ALL = view(primary(), replica("m2"), replica("m3"))


def voting(*others: Voter, acks: int = 1) -> Configuration:
    return Configuration(frozenset({("m1", "a"), *others}), acks)


def why(before: Record | None, after: Record, seen: View = ALL) -> str:
    return broken(CLUSTER, before, after, seen)


class TestNumbersThatOrder:
    def test_the_term_never_falls(self) -> None:
        assert "the term falls from 4 to 3" in why(RECORD, replace(RECORD, term=3))

    def test_nor_that_of_the_primary(self) -> None:
        assert "term of the primary falls" in why(RECORD, replace(RECORD, elected=2))

    def test_nor_the_serial_by_which_rows_prove_configurations(self) -> None:
        assert "serial of the configuration falls" in why(RECORD, replace(RECORD, serial=6))

    def test_a_new_configuration_has_a_new_serial(self) -> None:
        """Otherwise a row that was proven before would prove it."""
        grown = replace(RECORD, configurations=(voting(M2), VOTERS), serial=7)
        assert "has the serial 7 of the one before" in why(
            replace(RECORD, configurations=(voting(M2),)), grown
        )

    def test_what_changes_nothing_may_be_saved(self) -> None:
        assert why(RECORD, replace(RECORD, term=9, lease=5.0)) == ""

    def test_a_record_that_stands_already_is_not_judged(self) -> None:
        odd = replace(RECORD, configurations=(voting(M2, acks=5),))
        assert why(odd, replace(odd, term=9)) == ""


class TestOneConfiguration:
    @pytest.mark.parametrize(
        ("voters", "acks", "reason"),
        [
            ((M2, M3), 1, "the primary m1 is no voter"),
            ((("m1", "a"), M2, ("m2", "b")), 1, "in two incarnations"),
            ((("m1", "a"), M2), 2, "2 voters cannot give 2 acknowledgements"),
            ((("m1", "a"),), -1, "1 voters cannot give -1 acknowledgements"),
        ],
    )
    def test_that_nobody_could_follow(
        self, voters: tuple[Voter, ...], acks: int, reason: str
    ) -> None:
        bad = Configuration(frozenset(voters), acks)
        assert reason in why(RECORD, replace(RECORD, configurations=(VOTERS, bad), serial=8))


class TestTheFirstRecord:
    def test_begins_with_a_primary_that_nobody_deposes(self) -> None:
        alone = Record(1, "m1", 1, (voting(acks=0), VOTERS), 1)
        assert why(None, alone) == ""
        assert "the first record" in why(None, replace(alone, configurations=(VOTERS,)))

    def test_names_nobody_in_a_term_to_come(self) -> None:
        alone = Record(1, "m1", 2, (voting(acks=0),), 1)
        assert "which has not begun" in why(None, alone)


class TestVotersChange:
    """``extendable``, and ``settled``."""

    def test_exactly_as_extendable_allows(self) -> None:
        run = {M2: replica("m2"), M3: replica("m3")}
        for others, ended in product(subsets([M2, M3]), subsets([M2, M3])):
            for acks in range(len(others) + 1):
                target = voting(*others, acks=acks)
                seen = view(primary(), *(down(v[0]) if v in ended else run[v] for v in run))
                after = RECORD.extended(target, {M2, M3} - others)
                allowed = extendable(target, "m1", {M2, M3} - ended)
                assert (why(RECORD, after, seen) == "") is allowed, (target, ended)

    def test_a_stray_of_this_primary_must_vote(self) -> None:
        strays = frozenset({Stray("m3", "a", "m1")})
        before = replace(RECORD, configurations=(voting(M2),), strays=strays)
        grown = ("m4", "a")
        assert "one that may acknowledge to m1" in why(before, before.extended(voting(M2, grown)))
        assert why(before, before.extended(voting(M2, M3))) == ""

    def test_one_that_lives_and_loses_its_vote_is_a_stray_in_a_new_term(self) -> None:
        barred = view(primary(barred=("repl_m3", "replicator")), replica("m2"), replica("m3"))
        after = RECORD.extended(voting(M2), {M3})
        assert why(RECORD, after, barred) == ""
        assert "no term begins" in why(RECORD, replace(after, term=4), barred)
        assert "m3 may still acknowledge" in why(RECORD, replace(after, strays=frozenset()), barred)

    def test_nobody_is_left_out_while_nobody_sees_the_primary(self) -> None:
        unseen = view(replica("m2"), replica("m3"))
        assert "one that may acknowledge" in why(RECORD, RECORD.extended(voting(M2)), unseen)

    def test_the_last_one_stands_alone_once_a_row_has_proved_it(self) -> None:
        joint = RECORD.extended(voting(M2))
        proved = view(primary(proved=8), replica("m2"), down("m3"))
        assert why(joint, joint.settled("a"), proved) == ""
        early = view(primary(proved=7), replica("m2"), down("m3"))
        assert "no row of m1 has proved" in why(joint, joint.settled("a"), early)

    def test_without_acknowledgements_there_is_nothing_to_prove(self) -> None:
        joint = RECORD.extended(voting(acks=0), {M2, M3})
        assert why(joint, joint.settled("b")) == ""

    def test_no_other_one_is_given_up(self) -> None:
        joint = RECORD.extended(voting(M2))
        other = replace(joint, configurations=(VOTERS,), serial=9)
        assert "given up" in why(joint, other, view(primary(proved=9), replica("m2")))
        replaced = replace(RECORD, configurations=(voting(M2),), serial=8)
        assert "given up" in why(RECORD, replaced)

    def test_nor_are_two_added_at_once(self) -> None:
        twice = replace(RECORD, configurations=(VOTERS, voting(M2), voting(M3)), serial=8)
        assert "given up" in why(RECORD, twice)


class TestAnotherPrimary:
    """``recoverable``, and which configurations may stand from then on."""

    FAILOVER = replace(RECORD, term=5, transition=Failover(Step.ELECT, "m1"))
    NAMED = replace(
        FAILOVER,
        primary="m2",
        elected=5,
        configurations=(Configuration(frozenset({M2, M3}), 1),),
        serial=8,
        transition=Failover(Step.OPEN, "m1"),
    )

    def promised(self, *names: str, **changes: object) -> View:
        return view(
            down("m1"),
            *(replica(n, term=5, promised=5 if n in names else 0, **changes) for n in ("m2", "m3")),
        )

    def test_after_a_recovery_quorum_has_promised(self) -> None:
        assert why(self.FAILOVER, self.NAMED, self.promised("m2", "m3")) == ""

    def test_not_before(self) -> None:
        assert "no recovery quorum" in why(self.FAILOVER, self.NAMED, self.promised("m2"))

    def test_of_every_configuration_in_force(self) -> None:
        four = Configuration(frozenset({*VOTERS.voters, ("m4", "a")}), 1)
        joint = replace(self.FAILOVER, configurations=(four, VOTERS))
        seen = self.promised("m2", "m3")
        strays = frozenset({Stray("m4", "a", "m1")})
        assert "no recovery quorum" in why(joint, replace(self.NAMED, strays=strays), seen)

    def test_an_operator_may_accept_the_loss(self) -> None:
        lossy = replace(self.FAILOVER, transition=Failover(Step.ELECT, "m1", lossy=True))
        named = replace(self.NAMED, strays=frozenset({Stray("m3", "a", "m1")}))
        assert why(lossy, named, self.promised("m2")) == ""

    def test_in_a_weaker_mode_only_that(self) -> None:
        weak, named = (replace(each, mode=Mode.ASYNC) for each in (self.FAILOVER, self.NAMED))
        assert "no recovery quorum" in why(weak, named, self.promised("m2", "m3"))

    def test_not_while_nothing_is_under_way(self) -> None:
        idle = replace(self.FAILOVER, transition=None)
        assert "neither a failover nor a switchover" in why(
            idle, self.NAMED, self.promised("m2", "m3")
        )

    def test_one_in_a_term(self) -> None:
        used = replace(self.FAILOVER, elected=5)
        assert "both named in term 5" in why(used, self.NAMED, self.promised("m2", "m3"))
        late = replace(self.NAMED, term=6, elected=6)
        assert "both named in term 6" in why(self.FAILOVER, late, self.promised("m2", "m3"))

    def test_with_voters_that_hold_all_that_it_has(self) -> None:
        behind = view(
            down("m1"),
            replica("m2", term=5, promised=5),
            replica("m3", term=5, promised=5, received="0-1-8", applied="0-1-8"),
        )
        assert "too few voters hold" in why(self.FAILOVER, self.NAMED, behind)
        alone = Configuration(frozenset({M2}), 0)
        first = replace(self.NAMED, configurations=(alone, *self.NAMED.configurations))
        assert why(self.FAILOVER, first, behind) == ""

    def test_one_that_may_acknowledge_to_it_from_before_votes(self) -> None:
        before = replace(self.FAILOVER, strays=frozenset({Stray("m4", "a", "m2")}))
        seen = self.promised("m2", "m3")
        assert "may acknowledge to m2" in why(before, self.NAMED, seen)
        with_it = Configuration(frozenset({M2, M3, ("m4", "a")}), 1)
        assert why(before, replace(self.NAMED, configurations=(with_it,)), seen) == ""

    def test_one_that_nobody_has_stopped_stays_a_stray(self) -> None:
        before = replace(self.FAILOVER, strays=frozenset({Stray("m4", "a", "m1")}))
        seen = self.promised("m2", "m3")
        assert "m4 may still acknowledge" in why(before, self.NAMED, seen)
        assert why(before, replace(self.NAMED, strays=before.strays), seen) == ""


class TestASwitchover:
    BEFORE = replace(
        RECORD,
        term=5,
        transition=Switchover(Step.FREEZE, "m2"),
    )
    AFTER = replace(
        BEFORE,
        primary="m2",
        elected=5,
        serial=8,
        transition=Switchover(Step.OPEN, "m2", deposed="m1"),
        strays=frozenset({Stray("m2", "a", "m1"), Stray("m3", "a", "m1")}),
    )

    def seen(self, candidate: MemberState | None = None, **changes: object) -> View:
        frozen = {"term": 5, "frozen": 5, "writable": False, **changes}
        return view(primary(**frozen), candidate or replica("m2", term=5), replica("m3", term=5))

    def test_once_the_primary_is_frozen_and_its_successor_has_all(self) -> None:
        assert why(self.BEFORE, self.AFTER, self.seen()) == ""

    def test_not_before(self) -> None:
        for running in ({"frozen": 4}, {"writable": True}):
            assert "has not confirmed" in why(self.BEFORE, self.AFTER, self.seen(**running))
        behind = replica("m2", term=5, applied="0-1-8")
        assert "m2 has not applied all" in why(self.BEFORE, self.AFTER, self.seen(behind))

    def test_nor_while_voters_are_chained_only(self) -> None:
        chaining = replace(self.BEFORE, transition=Switchover(Step.CHAIN, "m2"))
        assert "neither a failover" in why(chaining, self.AFTER, self.seen())


class TestModeStrong:
    WEAK = replace(RECORD, mode=Mode.SEMI_SYNC, transition=Strengthen())
    STRONG = replace(WEAK, mode=Mode.STRONG, transition=None)

    def test_once_a_row_has_proved_it(self) -> None:
        assert why(self.WEAK, self.STRONG, view(primary(proved=7))) == ""
        assert "mode strong" in why(self.WEAK, self.STRONG, view(primary(proved=6)))

    def test_not_without_having_tried(self) -> None:
        idle = replace(self.WEAK, transition=None)
        assert "mode strong" in why(idle, self.STRONG, view(primary(proved=7)))

    def test_a_weaker_one_at_any_time(self) -> None:
        assert why(RECORD, replace(RECORD, mode=Mode.ASYNC)) == ""


def test_a_decision_that_breaks_a_rule_is_to_do_nothing() -> None:
    bad = Decision("all is well", (Save(replace(RECORD, term=3), "a mistake"),))
    found = checked(CLUSTER, RECORD, ALL, bad)
    assert found.broken
    assert not found.steps
    assert not found.well
    assert "the next record of c (term 3, primary m1) breaks a rule" in found.reason
    assert "the term falls from 4 to 3; revision 0 of term 4 is kept" in found.reason


def test_any_other_is_left_as_it_is() -> None:
    for right in (
        decide(CLUSTER, RECORD, view(down("m1"), replica("m2"), replica("m3"))),
        Decision("asking", (Send("m2", Promise()),)),
    ):
        assert right.steps
        assert checked(CLUSTER, RECORD, ALL, right) is right


def subsets(voters: list[Voter]) -> list[frozenset[Voter]]:
    return [frozenset(c) for n in range(len(voters) + 1) for c in combinations(voters, n)]

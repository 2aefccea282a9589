"""Taking over a cluster: which server is primary, what stands against it, and that an incomplete attempt does no
harm."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.change.adopt import AdoptionPlan, Refusals, first_record, plan
from holdfast.core.change.bootstrap import bootstrap
from holdfast.core.check.facts import Facts, Upstream
from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import EnsureAccount, Equip, Follow, SetAcks
from holdfast.core.decision import Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    Seen,
    SemiSync,
    ServerStatus,
    View,
)
from holdfast.errors import OutcomeUnknown, Refused, Unreachable
from holdfast.http.wire import AccountReply, ReachReply
from holdfast.manager.leader.events import EventLog
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.adopt import ATTACHED_SECONDS, Adoption
from tests.unit.core.check.test_check import good, running
from tests.unit.hand_clock import PacedClock

BOTH = pytest.mark.parametrize("flavor", list(Flavor))
CLUSTER = Cluster(
    "c", tuple(Member(f"m{n}", "h", 3306, f"http://a{n}", f"repl_m{n}") for n in (1, 2, 3))
)


def upstream(of: int, **fields: Any) -> Upstream:
    source = Upstream(
        host="h",
        port=3306,
        user="old",
        server_id=of,
        uuid=f"uuid-{of}",
        gtid=True,
        receiver=True,
        applier=True,
        tls=True,
    )
    return replace(source, **fields)


def healthy(flavor: Flavor) -> dict[str, Facts]:
    """m1 takes writes, the other servers follow it."""
    uuid = "1111aaaa-0000-0000-0000-000000000001"
    origin, applied = ("0-1", "0-1-10") if flavor is Flavor.MARIADB else (uuid, f"{uuid}:1-10")
    made = {f"m{n}": replace(good(flavor, n), applied=applied) for n in (1, 2, 3)}
    made["m1"] = replace(running(made["m1"], read_only="OFF"), origin=origin)
    for name in ("m2", "m3"):
        made[name] = replace(made[name], upstreams=(upstream(1),))
    return made


def against(facts: dict[str, Facts]) -> str:
    refusals = plan(CLUSTER, facts)
    assert isinstance(refusals, Refusals), refusals
    return "; ".join(refusals.reasons)


@BOTH
def test_the_one_that_takes_writes_and_is_followed_is_primary(flavor: Flavor) -> None:
    planned = plan(CLUSTER, healthy(flavor))
    assert planned == AdoptionPlan(
        primary="m1",
        replicas=("m2", "m3"),
        server_id=1,
        uuid="uuid-1" if flavor is Flavor.MYSQL else "",
        accounts=("repl_m1", "repl_m2", "repl_m3"),
        repointed=("m2", "m3"),
        equipped=(),
    )


@BOTH
def test_a_primary_is_known_by_itself_and_not_by_the_name_that_its_replicas_use(
    flavor: Flavor,
) -> None:
    facts = healthy(flavor)
    alias = upstream(1, host="primary.example", user="repl_m2")
    facts["m2"] = replace(facts["m2"], upstreams=(alias,))
    facts["m3"] = replace(facts["m3"], upstreams=(upstream(1, user="repl_m3"),))
    planned = plan(CLUSTER, facts)
    assert isinstance(planned, AdoptionPlan)
    assert planned.repointed == ("m2",)


@BOTH
def test_refusals_name_each_reason(flavor: Flavor) -> None:
    facts = healthy(flavor)
    two = {**facts, "m2": running(facts["m2"], read_only="OFF")}
    assert "m1 and m2 take writes" in against(two)
    none = {**facts, "m1": running(facts["m1"], read_only="ON")}
    assert "no server takes writes" in against(none)
    chain = {**facts, "m3": replace(facts["m3"], upstreams=(upstream(2),))}
    assert "m3 follows m2 (h:3306), and m1 takes writes" in against(chain)
    stranger = {**facts, "m3": replace(facts["m3"], upstreams=(upstream(77),))}
    assert "m3 follows h:3306" in against(stranger)
    never = {**facts, "m3": replace(facts["m3"], upstreams=(upstream(0, uuid=""),))}
    assert "m3 follows h:3306" in against(never)
    alone = {**facts, "m3": replace(facts["m3"], upstreams=())}
    assert "m3 does not replicate: let it" in against(alone)
    ring = {**facts, "m1": replace(facts["m1"], upstreams=(upstream(2),))}
    assert "m1 takes writes, but replicates from h:3306" in against(ring)
    places = {**facts, "m3": replace(facts["m3"], upstreams=(upstream(1, gtid=False),))}
    assert "m3 replicates by file and position" in against(places)
    stopped = {
        **facts,
        "m2": replace(facts["m2"], upstreams=(upstream(1, applier=False),)),
        "m3": replace(facts["m3"], upstreams=(upstream(1, error="duplicate key"),)),
    }
    assert "m2 does not replicate: its receiver or its applier is stopped" in against(stopped)
    assert "m3 does not replicate: duplicate key" in against(stopped)
    unanswered = {name: each for name, each in facts.items() if name != "m2"}
    assert "m2: its agent does not answer" in against(unanswered)
    elsewhere = {**facts, "m2": running(facts["m2"], port="3307")}
    assert "listens on port 3307" in against(elsewhere)
    other = {**facts, "m2": replace(facts["m2"], account="repl")}
    assert "the agent replicates as repl, and the manager's file says repl_m2" in against(other)


@BOTH
def test_what_a_replica_alone_has_is_refused_and_what_the_primary_wrote_since_is_not(
    flavor: Flavor,
) -> None:
    facts = healthy(flavor)
    newer, stray = (
        ("0-1-12", "0-1-10,0-2-11")
        if flavor is Flavor.MARIADB
        else (
            "1111aaaa-0000-0000-0000-000000000001:1-12",
            "1111aaaa-0000-0000-0000-000000000001:1-10,2222aaaa-0000-0000-0000-000000000002:1",
        )
    )
    assert isinstance(
        plan(CLUSTER, {**facts, "m2": replace(facts["m2"], applied=newer)}), AdoptionPlan
    )
    errant = {**facts, "m2": replace(facts["m2"], applied=stray)}
    assert "m2 has transactions that m1 lacks" in against(errant)


def states(flavor: Flavor = Flavor.MARIADB, **changes: dict[str, Any]) -> View:
    """As seen when everything is prepared."""
    following = Replication("h:3306", Receiver.ON, True)
    made = {}
    for name in ("m1", "m2", "m3"):
        state = MemberState(
            name,
            flavor,
            server=ServerStatus.UP,
            incarnation=f"run-{name}",
            origin="0-1" if name == "m1" else "0-2",
            writable=name == "m1",
            received="0-1-10",
            applied="0-1-10",
            replication=Replication() if name == "m1" else following,
        )
        made[name] = Seen(replace(state, **changes.get(name, {})), 0.0)
    return View(made, 0.0)


def test_the_first_record_names_the_primary_alone_for_no_acknowledgements() -> None:
    record = first_record(CLUSTER, states(), "m1")
    assert isinstance(record, Record)
    assert record.configurations == (Configuration(frozenset({("m1", "run-m1")}), 0),)
    assert (record.term, record.primary, record.transition) == (1, "m1", None)
    assert not record.recoverable({("m2", "run-m2"), ("m3", "run-m3")}), "it is never deposed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"m1": {"writable": False}}, "m1 is not seen"),
        ({"m1": {"server": ServerStatus.DOWN}}, "m1 is not seen"),
        ({"m2": {"server": ServerStatus.STARTING}}, "m2 is not seen to be up"),
        ({"m2": {"writable": True}}, "m2 takes writes"),
        ({"m2": {"term": 3}}, "m2 was in a cluster before"),
        ({"m2": {"applied": "0-1-10,0-2-11"}}, "m2 does not follow"),
        ({"m2": {"replication": Replication()}}, "m2 does not follow h:3306 yet"),
        (
            {"m2": {"replication": Replication("h:3306", Receiver.CONNECTING, True)}},
            "m2 is not connected",
        ),
    ],
)
def test_no_record_is_made_from_anything_else(changes: dict[str, Any], reason: str) -> None:
    if "applied" in changes.get("m2", {}):
        changes["m2"]["received"] = changes["m2"]["applied"]
        reason = "m2 has transactions that m1 lacks"
    refusals = first_record(CLUSTER, states(**changes), "m1")
    assert isinstance(refusals, Refusals)
    assert reason in "; ".join(refusals.reasons)


def test_without_an_order_nothing_is_done_to_a_cluster_that_runs() -> None:
    decision = bootstrap(CLUSTER, states())
    assert decision.steps == ()
    assert "holdfast adopt" in decision.reason
    down = states(m1={"server": ServerStatus.DOWN, "writable": False})
    assert bootstrap(CLUSTER, down).steps == (), "nor to one whose primary has just stopped"


class Agent:
    def __init__(self, name: str) -> None:
        self._name = name
        self.reaches = ReachReply(server_id=1)

    async def reach(self, host: str, port: int, public_key: str) -> ReachReply:
        assert (host, port, public_key) == ("h", 3306, "key of m1")
        return self.reaches

    async def account(self) -> AccountReply:
        return AccountReply(
            user=f"repl_{self._name}",
            authentication=f"*{self._name}",
            public_key=f"key of {self._name}",
        )


@dataclass
class MemoryLeader:
    """As ``manager.lead.Leader``; carries out the preparations, until one is to fail.

    :ivar fails_at: the number of the command that fails, and how many are still open then
    """

    fails_at: int | None = None
    semi_sync: bool = True
    record: Record | None = None
    sent: list[Send] = field(default_factory=list)
    clock: Clock = SYSTEM_CLOCK

    def __post_init__(self) -> None:
        self.cluster = CLUSTER
        self.events = EventLog("c")
        self.deciding = asyncio.Lock()
        self.agents = {name: Agent(name) for name in ("m1", "m2", "m3")}
        self.following: set[str] = set()
        self.found_after: list[Send] = []

    def refuse_elsewhere(self) -> None:
        pass

    def view(self) -> View:
        source = {"semi_sync": SemiSync(source=self.semi_sync, acks=int(self.semi_sync))}
        old = {"replication": Replication("old:3306", Receiver.ON, True)}
        rest: dict[str, Any] = {name: old for name in ("m2", "m3") if name not in self.following}
        return states(m1=source, **rest)

    def leading(self) -> tuple[MemoryLeader, Record | None]:
        """It is its own actor."""
        return self, self.record

    async def order(self, _term: int, step: Send) -> None:
        assert self.record is None, "nothing is prepared once it is managed"
        self.sent.append(step)
        if self.fails_at == len(self.sent):
            raise Unreachable("the agent has gone")
        match step.command:
            case SetAcks(acks=0):
                self.semi_sync = False
            case Follow(source="m1", semi_sync=False):
                assert not self.semi_sync, "it would wait for replicas that stop acknowledging"
                self.following.add(step.member)

    async def decided(self, step: Save) -> None:
        assert self.deciding.locked()
        self.record = step.record


async def gathered(_: object) -> tuple[dict[str, Facts], dict[str, str]]:
    return healthy(Flavor.MARIADB), {}


def adoption(leader: MemoryLeader) -> Adoption:
    return Adoption(cast(Leader, leader), gathered)


def test_adopting_equips_all_makes_accounts_repoints_and_founds() -> None:
    leader = MemoryLeader()
    reply = asyncio.run(adoption(leader).run(False, "m1", {}))
    assert reply.done
    kinds = [type(step.command) for step in leader.sent]
    assert kinds == [Equip] * 3 + [EnsureAccount] * 3 + [SetAcks] + [Follow] * 2
    assert all(s.member == "m1" for s in leader.sent if isinstance(s.command, EnsureAccount))
    assert leader.record is not None


@pytest.mark.parametrize("failing", range(1, 10))
def test_cut_short_at_any_step_there_is_no_record_and_the_next_attempt_ends_well(
    failing: int,
) -> None:
    leader = MemoryLeader(fails_at=failing)
    with pytest.raises(Unreachable):
        asyncio.run(adoption(leader).run(False, "", {}))
    assert leader.record is None
    leader.sent.clear()
    leader.fails_at = None
    leader.deciding = asyncio.Lock()
    assert asyncio.run(adoption(leader).run(False, "", {})).done
    assert leader.record is not None


def test_a_dry_run_sends_nothing() -> None:
    leader = MemoryLeader()
    reply = asyncio.run(adoption(leader).run(True, "", {}))
    assert reply.plan is not None
    assert reply.against == ()
    assert (leader.sent, leader.record) == ([], None)


def test_another_primary_than_the_one_that_was_shown_is_refused() -> None:
    leader = MemoryLeader()
    with pytest.raises(Refused, match="m1 is primary now, not m2"):
        asyncio.run(adoption(leader).run(False, "m2", {}))
    assert leader.sent == []


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (ReachReply(server_id=9), "from the host of m3, h:3306 is another server"),
        (
            ReachReply(error="h:3306 refuses the login of repl_m3"),
            "from the host of m3, h:3306 refuses",
        ),
    ],
)
def test_a_replica_that_would_not_reach_the_primary_is_not_told_to_follow_it(
    there: ReachReply, reason: str
) -> None:
    leader = MemoryLeader()
    leader.agents["m3"].reaches = there
    with pytest.raises(Refused, match=reason):
        asyncio.run(adoption(leader).run(False, "", {}))
    assert not [step for step in leader.sent if isinstance(step.command, Follow)]
    assert leader.record is None


def test_a_replica_that_never_attaches_is_told_and_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leader = MemoryLeader(clock=PacedClock(ATTACHED_SECONDS / 0.1))

    async def scenario() -> None:
        taken = leader.order

        async def order(term: int, step: Send) -> None:
            if step.member != "m3" or not isinstance(step.command, Follow):
                await taken(term, step)

        monkeypatch.setattr(leader, "order", order)
        with pytest.raises(OutcomeUnknown, match="m3 does not follow h:3306 yet"):
            await adoption(leader).run(False, "", {})

    asyncio.run(scenario())
    assert leader.record is None

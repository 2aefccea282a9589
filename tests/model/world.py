"""A cluster in memory: servers with binlogs, relay logs and semi-sync, agents with terms, clients that write.

The rules are those of ``docs/servers.md``, reduced to what can lose a transaction: acknowledgements count by what a
semi-sync replica received, a crash drops what was received and not applied (MariaDB), a restart commits the pending
log.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from holdfast.agent.lease.state import Due, LeaseState
from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import (
    Bar,
    Clone,
    Close,
    Command,
    Compare,
    Cut,
    Drain,
    Fence,
    Fetch,
    Follow,
    Freeze,
    Inventory,
    Judge,
    Promise,
    Promote,
    Prove,
    Restart,
    Rewind,
    SetAcks,
    Start,
    Unbar,
)
from holdfast.core.gtid import Flavor, parse
from holdfast.core.lease import Asked, Lease
from holdfast.core.members.own_writes import as_text
from holdfast.core.members.rollback import Remembered, jump_allowed
from holdfast.core.observed.dumps import Doubt
from holdfast.core.observed.lineage import RecordMark, follows, late, memory
from holdfast.core.observed.tally import Tally
from holdfast.core.rules.releases import acknowledged, asked, holds_back, let_through
from holdfast.core.settings import Settings, WaitPoint
from holdfast.core.timing import Timing
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    SemiSync,
    ServerStatus,
    Tail,
    TailVerdict,
)
from holdfast.http.wire import Grant, Told

GAP = 1000
HANGS = 40
"""A clone from which nothing comes for this many looks is called off."""
TIMINGS = [Timing(), Timing(heartbeat=0.1, lease=4.0, detection=0.3)]
"""With the second one, a primary that does not wait for a lease to end is discovered."""
MANAGER = "manager"
"""In ``World.cut``: where the managers are."""


class Transaction(NamedTuple):
    """:ivar content: what it does; two with one GTID and different contents are a disaster that no server notices"""

    stream: str
    number: int
    content: int

    @property
    def gtid(self) -> tuple[str, int]:
        return self.stream, self.number


@dataclass(frozen=True)
class Held:
    """As ``agent/promise/pending_mark.py``: what the server issues is pending, unless something was let through.

    :ivar run: of the server
    """

    run: int
    acks: int
    tally: Tally
    let_through: str = ""


@dataclass
class UnderWay:
    """A command that an agent has begun: the parts that are left, and the run of the server that it is about."""

    parts: Iterator[Callable[[], object]]
    run: int


@dataclass
class Host:
    """A member: server, agent, and the agent's keeper process.

    :ivar hung: the agent answers nothing and does nothing; its keeper process and its server continue
    :ivar tally: how many commits the server has let through in this run
    :ivar weakened: the waiting of commits was changed by hand
    :ivar orphans: rows in its tables that its binlog does not have: nothing will ever remove them
    :ivar shown: those whose GTIDs MySQL's engine has kept
    :ivar began: the run that wrote the last of its binlog
    :ivar ended_with: its binlog when its agent saw it end as a primary; None: the agent did not see that
    :ivar regained: as in ``agent/promise/regained.py``
    """

    name: str
    number: int
    flavor: Flavor
    uuid: int = 0
    identity: str = ""
    term: int = 0
    leader: str = ""
    mark: RecordMark = field(default_factory=RecordMark)
    record: str = ""
    promised: int = 0
    run: int = 0
    status: ServerStatus = ServerStatus.DOWN
    binlog: list[Transaction] = field(default_factory=list)
    relay: list[Transaction] = field(default_factory=list)
    left: list[Transaction] = field(default_factory=list)
    inventory: str | None = None
    pending: list[Transaction] = field(default_factory=list)
    source: str = ""
    receiving: bool = False
    applying: bool = False
    replica: bool = False
    acks: int = 0
    source_on: bool = False
    writable: bool = False
    sealed: int = 0
    stopped: int = 0
    proved: int = 0
    judged: str = ""
    gap: bool = False
    timeout: float = 0.0
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC
    barred: set[str] = field(default_factory=set)
    frozen: bool = False
    suspect: bool = False
    unfit: str = ""
    cloning: str = ""
    held_up: int = 0
    relaxed: bool = False
    clone_failed: tuple[str, ...] = ()
    last_applied: str = ""
    strange: bool = False
    tail: Tail = field(default_factory=Tail)
    agent_up: bool = True
    halted: bool = False
    hung: bool = False
    keeper_up: bool = True
    lease_state: LeaseState = field(default_factory=LeaseState)
    agent_run: int = 1
    vouched_until: float = 0.0
    asked: tuple[str, float] | None = None
    heard_at: float = 0.0
    refused: bool = False
    under_way: UnderWay | None = None
    tally: int = 0
    weakened: bool = False
    held: Held | None = None
    orphans: list[Transaction] = field(default_factory=list)
    shown: list[Transaction] = field(default_factory=list)
    began: int = 0
    ended_with: list[Transaction] | None = None
    regained: bool = False
    stranger: bool = False
    released: list[Transaction] = field(default_factory=list)
    doubtful: list[Transaction] = field(default_factory=list)
    doubt: Doubt | None = None

    def begin_agent(self, now: float) -> None:
        """Another run of the agent: it knows the electorate of its lease, from disk, and nothing of its own
        confirmations."""
        self.agent_run += 1
        self.ended_with, self.regained = None, False
        self.agent_up = self.keeper_up = True
        self.hung = False
        self.asked = None
        self.promised = 0
        self.lease_state = LeaseState(self.lease_state.known)
        self.vouched_until = now + self.lease_state.length
        if self.cloning:
            self.break_off("its clone was interrupted")
        if self.up and self.writable and self.lease_state.known:
            self.lease_state.enforce(now, grace=True)

    def answers(self, now: float) -> bool:
        """Whether a client that considers it the primary gets an answer."""
        leased = not (self.kept and self.lease_state.enforced) or self.lease_state.held(now)
        return self.up and self.writable and not self.frozen and not self.halted and leased

    @property
    def up(self) -> bool:
        return self.status is ServerStatus.UP

    @property
    def attended(self) -> bool:
        """Whether its agent does its work."""
        return self.agent_up and not self.hung

    @property
    def kept(self) -> bool:
        """Whether a process ends the server with its lease."""
        return self.attended or self.keeper_up

    @property
    def origin(self) -> str:
        if self.flavor is Flavor.MARIADB:
            return f"0-{self.number}"
        return f"{self.number:08d}-0000-0000-0000-{self.uuid:012d}"

    @property
    def incarnation(self) -> str:
        return "" if self.status is ServerStatus.DOWN else f"{self.name}.{self.run}"

    def refuses(self, term: int, leader: str) -> bool:
        return term < self.term or (term == self.term and leader != self.leader)

    def follows(self, told: Told) -> bool:
        """Whether the record by which that manager decides is of the line that the agent obeyed."""
        if not told.mark.revision or told.leader == self.mark.leader:
            return not late(told.mark, self.mark)
        record = memory(told.record).record
        return follows(record, self.mark) or self.name in record.forsaken

    def strange_to(self, told: Told) -> bool:
        """Whether that manager considers it another agent."""
        return told.identity not in ("", self.identity)

    def remembered(self) -> Remembered:
        known = memory(self.record) if self.record else None
        return Remembered(self.term, self.identity, self.mark, known)

    def text(self, transactions: list[Transaction]) -> str:
        if self.flavor is Flavor.MARIADB:
            state: dict[str, int] = {}
            for stream, number, _ in transactions:
                state[stream] = max(state.get(stream, 0), number)
            return ",".join(f"{stream}-{number}" for stream, number in state.items())
        return ",".join(f"{stream}:{number}" for stream, number, _ in transactions)

    def state(self, now: float) -> MemberState:
        vouched = max(0.0, self.vouched_until - now)
        word: dict[str, Any] = {
            "vouched": vouched,
            "unvouched": max(0.0, now - self.vouched_until),
            "asked": Asked(self.asked[0], now - self.asked[1]) if self.asked else None,
        }
        if not self.up:
            return MemberState(
                self.name,
                self.flavor,
                self.term,
                self.promised,
                self.status,
                self.incarnation,
                origin=self.origin,
                last_applied=self.last_applied,
                tail=self.tail,
                unfit=self.unfit,
                doubt=self.doubt,
                **word,
                leader=self.leader,
                record=self.mark,
                identity=self.identity,
                cloning=self.cloning,
                clone_failed=self.clone_failed,
                kept=self.inventory,
            )
        committed = [t for t in (*self.binlog, *self.shown) if t not in self.pending]
        applied = self.binlog if self.flavor is Flavor.MARIADB else committed
        received = self.relay[-1:] if self.flavor is Flavor.MARIADB else self.relay
        return MemberState(
            self.name,
            self.flavor,
            self.term,
            self.promised,
            self.status,
            self.incarnation,
            origin=self.origin,
            writable=self.writable,
            received=self.text(applied + received),
            applied=self.text(applied),
            proved=self.proved,
            judged=self.judged,
            replication=Replication(
                self.source,
                Receiver.OFF
                if not self.receiving
                else Receiver.CONNECTING
                if self.strange
                else Receiver.ON,
                self.applying,
                purged=self.strange,
                unheard=now - self.heard_at if self.receiving else 0.0,
                refused=self.refused,
            ),
            semi_sync=SemiSync(
                self.source_on,
                self.acks,
                0,
                self.replica,
                self.timeout,
                self.wait_point,
                waiting=len(self.pending),
                waits_alone=not self.weakened,
                tally=Tally(let_through=self.tally),
            ),
            regained=self.regained,
            barred=tuple(sorted(self.barred)),
            silent_seconds=60.0 if self.frozen else 0.0,
            **word,
            suspects=("app.t",) if self.suspect else (),
            unfit=self.unfit,
            frozen=self.sealed,
            stopped=self.stopped,
            leader=self.leader,
            record=self.mark,
            identity=self.identity,
            let_through=self.held.let_through if self.held else "",
            doubt=self.doubt,
            lease=Lease(
                self.lease_state.enforced,
                quorums=self.lease_state.known.quorums
                if self.lease_state.known and self.lease_state.enforced
                else None,
            ),
        )

    def crash(self) -> None:
        self.last_applied = self.text([t for t in self.binlog if t not in self.pending])
        if self.status is not ServerStatus.DOWN:
            seen = self.up and self.attended and not self.source
            served = self.source_on or self.writable or self.regained
            self.ended_with = list(self.binlog) if seen and served else None
        self.status = ServerStatus.DOWN
        self.frozen = False
        self.timeout = 0.0
        self.writable = self.receiving = self.applying = self.replica = self.source_on = False
        self.acks = self.proved = self.sealed = self.stopped = 0
        self.left, self.relay = self.relay, []
        self.inventory = None
        self.strange = self.weakened = self.stranger = False
        self.released = []
        self.tally = 0
        self.judged = ""
        self.tail = Tail()
        self.lease_state.release()

    def tear(self) -> None:
        """The host's power fails. A primary flushes what it commits; tables and binlog of a replica disagree."""
        if self.relaxed:
            self.unfit = "its host was restarted"
        if self.status is not ServerStatus.DOWN:
            self.crash()

    def break_off(self, why: str) -> None:
        self.clone_failed = (*self.clone_failed, self.cloning)
        self.unfit, self.cloning = why, ""

    def next(self, content: int) -> Transaction:
        numbers = [
            t.number
            for t in self.binlog
            if self.flavor is Flavor.MARIADB or t.stream == self.origin
        ]
        last = max(numbers, default=0)
        if self.gap and self.flavor is Flavor.MARIADB:
            last = (last // GAP + 1) * GAP
        self.gap = False
        return Transaction(self.origin, last + 1, content)


class World:
    """:ivar acknowledged: every transaction that a client was told is committed
    :ivar let_through: except for these, which were let through without a voter by hand: of them only this is promised,
        that no member alone keeps them
    :ivar destroyed: hosts that never come back; :ivar hidden: hosts that no manager reaches, though they live
    :ivar forgotten: members that an operator has declared destroyed
    :ivar engines_tell: what engines have committed is known; :ivar agents_see: agents see what is let through, and
        whether another run of the server wrote its binlog. Each alone keeps members from diverging
    """

    def __init__(
        self, rng: random.Random, members: int, flavor: Flavor, settings: Settings | None = None
    ) -> None:
        self.rng = rng
        self.settings = settings or Settings()
        self.cut: set[frozenset[str]] = set()
        self.destroyed: set[str] = set()
        self.hidden: set[str] = set()
        self.forgotten: set[str] = set()
        self.hosts = {
            f"m{i}": Host(f"m{i}", i, flavor, identity=f"agent-{i}") for i in range(1, members + 1)
        }
        self.acknowledged: list[Transaction] = []
        self.let_through: list[Transaction] = []
        self.engines_tell = self.agents_see = True
        self.written = 0
        self.back = 0
        self.now = 0.0
        self.timing = rng.choice(TIMINGS)

    @property
    def cluster(self) -> Cluster:
        """The cluster as an operator has configured it now."""
        members = tuple(
            Member(name, name, 3306, account=f"repl_{name}")
            for name in self.hosts
            if name not in self.forgotten
        )
        return Cluster("c", members, replace(self.settings, timing=self.timing))

    def connected(self, host: Host, source: Host) -> bool:
        return (
            not host.strange
            and host.up
            and source.up
            and host.source == f"{source.name}:3306"
            and host.receiving
            and not host.frozen
            and not source.frozen
            and not host.halted
            and not source.halted
            and f"repl_{host.name}" not in source.barred
            and frozenset({host.name, source.name}) not in self.cut
        )

    def pass_time(self, seconds: float) -> None:
        """Agents look at their clocks, and replicas hear their sources or do not."""
        self.now += seconds
        for host in self.hosts.values():
            if host.halted:
                continue
            source = self.hosts.get(host.source.partition(":")[0])
            host.refused = False
            if source and self.connected(host, source):
                host.heard_at = self.now
            elif source and host.receiving and self.linked(host, source) and not host.frozen:
                host.refused = source.status is ServerStatus.DOWN
            if host.timeout and host.pending and self.obeys(host):
                self.judge(host)  # a time-out passes also without a replica
            if host.agent_up and not host.hung:
                self.notice(host)
            if host.kept:
                self.keep(host)
            if host.attended and (host.stranger or host.released) and self.rng.random() < 0.5:
                self.look_for_strangers(host)

    def look_for_strangers(self, host: Host) -> None:
        """The agent looks which sessions acknowledge, and ends those that should not.

        What such a session released counts as acknowledged once the record has it: a primary that dies, or is cut off,
        before its agent has looked and a manager has heard of it may take that with it (``docs/safety.md``).
        """
        if not host.up or host.frozen or not (host.stranger or host.released):
            return
        if not host.source_on:  # a primary whose commits do not wait, or a replica
            host.released = []
            return
        host.doubtful += host.released
        host.doubt = Doubt(host.state(self.now).applied, len(host.released), "a stranger")
        host.stranger, host.released = False, []
        host.barred |= {f"repl_{name}" for name in self.forgotten}
        if host.held:
            host.held = replace(host.held, let_through="a stranger")

    def keep(self, host: Host) -> None:
        """The agent or its keeper process: asks, and kills its server when the lease is over."""
        lease_state, known = host.lease_state, host.lease_state.known
        peers = [self.hosts[n] for n in known.agents if n in self.hosts] if known else []
        match lease_state.due(self.now):
            case Due.FENCE:
                refused = all(self.linked(host, each) and not each.agent_up for each in peers)
                if not host.agent_up and refused and peers:
                    host.keeper_up = False
                else:
                    host.crash()
            case Due.ASK if known:
                question = lease_state.ask(self.now)
                for peer in peers:
                    if not (self.linked(host, peer) and peer.attended):
                        continue
                    peer.asked = (f"{host.name}:3306", self.now)
                    if self.vouch(peer, host):
                        peer.vouched_until = max(peer.vouched_until, self.now + lease_state.length)
                        lease_state.vouched(peer.name, question)

    def part(self, name: str) -> None:
        """Cut a host off from managers and members; its clients still reach it."""
        others = {*self.hosts, MANAGER} - {name}
        self.cut |= {frozenset({name, each}) for each in others}

    def linked(self, one: Host, other: Host) -> bool:
        return not other.halted and frozenset({one.name, other.name}) not in self.cut

    def vouch(self, peer: Host, primary: Host) -> bool:
        follows = peer.up and peer.receiving and peer.source == f"{primary.name}:3306"
        return follows and not peer.promised

    def reachable(self, name: str) -> bool:
        """Whether a manager can reach its agent."""
        host = self.hosts[name]
        away = {*self.hidden, *self.forgotten}
        cut = frozenset({name, MANAGER}) in self.cut or name in away
        return host.attended and not host.halted and not cut

    def watch(self, name: str, grant: Grant | None, told: Told | None = None) -> None:
        """A manager's poll, or what comes with its command: its grant takes effect, its record is remembered."""
        host = self.hosts[name]
        news = told and told.record and told.mark.age > host.mark.age
        if told and news and host.follows(told) and not host.refuses(told.mark.term, told.leader):
            host.mark, host.record = told.mark, told.record
        good = grant and not host.refuses(grant.term, grant.leader)
        if grant and good and grant.run == str(host.agent_run):
            host.lease_state.entrust(grant.electorate)
            if host.up and host.writable and not host.lease_state.enforced:
                host.lease_state.enforce(self.now, grace=False)
            host.lease_state.grant(self.now, grant.until, grant.lease)

    def replicas(self, source: Host) -> list[Host]:
        return [h for h in self.hosts.values() if self.connected(h, source)]

    # What happens without anybody's action

    def write(self) -> None:
        """A client writes to every server that accepts it."""
        for host in self.hosts.values():
            if host.answers(self.now):
                self.commit(host)

    def write_by_hand(self, host: Host) -> None:
        """An administrator's row, which nothing prevents from being committed."""
        self.written += 1
        host.binlog.append(host.next(self.written))

    def commit(self, host: Host) -> Transaction:
        self.written += 1
        transaction = host.next(self.written)
        host.binlog.append(transaction)
        host.pending.append(transaction)
        self.judge(host)
        return transaction

    def judge(self, host: Host) -> None:
        """Acknowledge what k semi-sync replicas have received, in binlog order."""
        for transaction in list(host.pending):
            holders = [
                r
                for r in self.replicas(host)
                if r.replica and (transaction in r.relay or transaction in r.binlog)
            ]
            if host.source_on and any(r.name in self.forgotten for r in holders):
                # one that was declared destroyed is back: the server counts it like any stranger
                holders = [r for r in holders if r.name not in self.forgotten]
                host.stranger = True
                self.back += 1
            timed_out = host.timeout and self.rng.random() < 0.2
            short = host.source_on and len(holders) < host.acks
            if short and host.weakened:
                self.release(host, transaction)
                continue
            short = short and not timed_out
            if short and len(holders) + host.stranger < host.acks:
                break
            host.pending.remove(transaction)
            (host.released if short else self.acknowledged).append(transaction)

    # What operators do by hand

    def release(self, host: Host, transaction: Transaction) -> None:
        """The transaction is committed, and no voter has it; its client may have been told OK."""
        host.pending.remove(transaction)
        host.tally += 1
        self.let_through.append(transaction)
        if not self.engines_tell:
            self.notice(host)

    def kill_waiters(self, host: Host) -> None:
        """KILL QUERY of sessions that wait: MariaDB commits what they wrote, in the order of the binlog."""
        if self.obeys(host) and host.source_on and host.flavor is Flavor.MARIADB:
            for transaction in host.pending[: self.rng.randint(0, 2)]:
                self.release(host, transaction)

    def weaken(self, host: Host) -> None:
        """SET GLOBAL of variables on which the waiting depends."""
        if self.obeys(host) and host.source_on and not host.timeout:
            host.weakened = True
            self.judge(host)

    def obeys(self, host: Host) -> bool:
        return host.up and not host.frozen and not host.halted

    def start_by_hand(self, host: Host) -> None:
        """An operator starts a primary that died, writes to it, and kills it, while its agent does not look."""
        if host.status is ServerStatus.DOWN and host.held is not None:
            host.run += 1
            host.began = host.run
            host.ended_with = None
            host.pending = []
            self.write_by_hand(host)
            host.tail = Tail()

    def notice(self, host: Host) -> None:
        """The agent looks whether something was let through, and resets what was changed by hand."""
        mark = host.held
        if not host.up or host.frozen or mark is None or mark.run != host.run:
            return
        waits = host.state(self.now).semi_sync
        if (
            self.agents_see
            and not mark.let_through
            and (found := let_through(mark.acks, mark.tally, waits))
        ):
            host.held = replace(mark, let_through=found.reason)
        host.weakened = False

    def replicate(self) -> None:
        """One replica receives one transaction, or applies one."""
        host = self.rng.choice(list(self.hosts.values()))
        if host.halted:
            return
        if not host.up:
            if host.cloning and host.agent_up and not host.hung:
                self._copy(host, self.hosts[host.cloning])
            if host.status is ServerStatus.STARTING:
                host.status = ServerStatus.UP
                host.pending = []  # crash recovery commits what is in the binlog
            return
        if host.frozen:
            return
        if host.relay and host.applying and self.rng.random() < 0.5:
            host.binlog.append(host.relay.pop(0))
        elif host.receiving:
            source = self.hosts[host.source.partition(":")[0]]
            if self.connected(host, source) and not self._strange(host, source):
                have = {t.gtid for t in (*host.binlog, *host.relay)}
                new = [t for t in source.binlog if t.gtid not in have]
                host.relay += new[: self.rng.randint(1, 3)]
                self.judge(source)

    def _strange(self, host: Host, source: Host) -> bool:
        """MariaDB's source refuses a replica that has a GTID which the source lacks (error 1236).

        MySQL's refuses a replica that lacks what only the source's engine has: that counts as purged from its binlogs.
        """
        last = [*host.binlog, *host.relay][-1:]
        if host.flavor is Flavor.MARIADB and last:
            host.strange = last[0].gtid not in {t.gtid for t in source.binlog}
        elif host.flavor is Flavor.MYSQL and source.shown:
            have = {t.gtid for t in (*host.binlog, *host.shown, *host.relay)}
            host.strange = any(t.gtid not in have for t in source.shown)
        return host.strange

    # What agents do

    def execute(
        self,
        name: str,
        term: int,
        command: Command,
        interrupted: bool,
        told: Told | None = None,
    ) -> None:
        """:raises ValueError: the agent refuses. ``interrupted``: it stops somewhere in the middle."""
        host = self._obeys(name, term, told)
        for part in self._parts(host, term, command):
            if interrupted and self.rng.random() < 0.5:
                raise ValueError("interrupted")
            part()

    def begin(self, name: str, term: int, command: Command, told: Told | None = None) -> None:
        """As :meth:`execute`, but its parts are left to :meth:`go_on`: other hosts and clients proceed meanwhile.

        :raises ValueError: the agent refuses
        """
        host = self._obeys(name, term, told)
        host.under_way = UnderWay(self._parts(host, term, command), host.run)

    def go_on(self, name: str) -> None:
        """Carry out one part of the command under way there, if there is one, and if the server is still the same."""
        host = self.hosts[name]
        if host.under_way is None or host.halted or host.frozen:
            return
        if not host.agent_up or not host.up or host.run != host.under_way.run:
            host.under_way = None
            return
        try:
            next(host.under_way.parts)()
        except (StopIteration, ValueError):
            host.under_way = None

    def _obeys(self, name: str, term: int, told: Told | None) -> Host:
        """An agent carries out one command at a time; a higher term calls off what is under way."""
        host = self.hosts[name]
        told = told or Told()
        if not self.reachable(name) or host.refuses(term, told.leader):
            raise ValueError(f"{name} is not there for term {term}")
        if not jump_allowed(host.term, term) or not host.follows(told) or host.strange_to(told):
            raise ValueError(f"{name} does not obey that manager")
        if host.under_way and term == host.term:
            raise ValueError(f"{name} is at work")
        host.under_way = None
        host.term, host.leader = term, told.leader
        if told.record and (told.leader != host.mark.leader or told.mark.age > host.mark.age):
            host.mark, host.record = told.mark, told.record
        return host

    def _parts(self, host: Host, term: int, command: Command) -> Iterator[Callable[[], object]]:
        match command:
            case Promise():
                yield lambda: setattr(host, "receiving", False)
                yield lambda: setattr(host, "promised", term)
            case Start() if host.status is ServerStatus.DOWN:
                if host.unfit:
                    raise ValueError("it is unfit")
                yield lambda: self._start(host)
            case Clone(donor=donor) if not host.writable and self.hosts[donor].up:
                if host.cloning != donor:
                    yield lambda: self._begin_clone(host, donor)
            case Cut(present=present) if host.status is ServerStatus.DOWN:
                yield lambda: self._cut(host, term, present)
            case Fence() if host.cloning:
                yield lambda: host.break_off("its clone was called off")
            case Inventory() if host.status is ServerStatus.DOWN:
                held = parse(host.flavor, host.text([*host.binlog, *host.left]))
                yield lambda: setattr(host, "inventory", str(held.not_of(host.origin)))
            case Fence() if host.up:
                yield host.crash
            case _ if not host.up or host.frozen:
                raise ValueError("server does not answer")
            case Bar(user=user):
                if host.source:
                    raise ValueError("it follows another")
                yield lambda: host.barred.add(user)
            case Unbar(user=user):
                yield lambda: host.barred.discard(user)
            case Restart():
                if host.source_on and host.pending:
                    raise ValueError("commits wait")
                yield host.crash
                yield lambda: self._start(host)
            case Rewind(present=present):
                if host.writable:
                    raise ValueError("it takes writes")
                yield lambda: self._rewind(host, present)
            case Judge(present=present):
                yield lambda: self._judge_own(host, present)
            case Compare():
                yield lambda: setattr(host, "suspect", False)
            case Fetch(source=source):
                if host.promised != term:
                    raise ValueError("it has not promised")
                yield lambda: self._drain(host)
                yield lambda: setattr(host, "replica", False)
                yield lambda: setattr(host, "source", f"{source}:3306")
                yield lambda: setattr(host, "receiving", True)
                yield lambda: setattr(host, "applying", True)
            case Drain(upto=upto, electorate=electorate):
                if electorate:
                    host.lease_state.entrust(electorate)
                yield lambda: self._drain(host, upto)
            case Freeze():
                if host.source:
                    raise ValueError("it follows another")
                if not host.writable and host.sealed != term:
                    yield lambda: setattr(host, "sealed", 0)
                yield lambda: self._freeze(host)
                yield lambda: setattr(host, "stopped", term)
                yield lambda: setattr(host, "sealed", term)
            case Close():
                if host.source or host.pending:
                    raise ValueError("commits wait")
                yield lambda: setattr(host, "writable", False)
            case Follow(source=source, semi_sync=semi_sync):
                if host.writable:
                    raise ValueError("it takes writes")
                if host.pending and host.source_on:
                    raise ValueError("commits wait")
                host.promised = host.sealed = host.stopped = 0
                host.held = host.doubt = None
                host.doubtful = []
                if not host.receiving:  # a receiver that begins sends a new request
                    yield lambda: setattr(host, "strange", False)
                if host.source != f"{source}:3306":
                    yield lambda: self._drain(host)
                    yield lambda: setattr(host, "receiving", False)
                    yield lambda: setattr(host, "relay", [])
                    yield lambda: setattr(host, "strange", False)
                    yield lambda: setattr(host, "source", f"{source}:3306")
                host.relaxed = True
                yield lambda: setattr(host, "source_on", False)
                yield lambda: setattr(host, "replica", semi_sync)
                yield lambda: setattr(host, "receiving", True)
                yield lambda: setattr(host, "applying", True)
                yield host.lease_state.release
            case Promote(drained=drained) if drained and host.source:
                yield from self._take_over(host, command)
            case Promote(acks=acks, serial=serial, timeout_seconds=timeout, wait_point=point):
                host.promised = host.sealed = host.stopped = 0
                assert command.electorate
                host.lease_state.entrust(command.electorate)
                opened = host.writable and (host.source_on or not acks)
                if not opened:
                    yield lambda: setattr(host, "receiving", False)
                    if host.relay:
                        raise ValueError("not drained")
                    yield lambda: self._unfollow(host)
                    yield lambda: self._mark(host, acks, timeout, point)
                elif host.source:
                    yield lambda: self._unfollow(host)
                yield lambda: self._set_acks(host, acks, timeout, point)
                yield lambda: self._prove(host, serial)
                if not host.lease_state.held(self.now):
                    raise ValueError("it has no lease")
                yield lambda: host.lease_state.enforce(self.now, grace=False)
                yield lambda: self._open(host)
            case SetAcks(acks=acks, timeout_seconds=timeout, wait_point=point):
                if host.source or not host.writable:
                    raise ValueError("it is no open primary")
                yield lambda: self._set_acks(host, acks, timeout, point)
            case Prove(serial=serial):
                if host.source or not host.writable:
                    raise ValueError("it is no open primary")
                assert command.electorate
                host.lease_state.entrust(command.electorate)
                yield lambda: self._prove(host, serial)

    def _take_over(self, host: Host, command: Promote) -> Iterator[Callable[[], object]]:
        """The server opens while it still follows the former primary, which is frozen.

        If this is interrupted, all of it is done again.
        """
        host.promised = host.sealed = host.stopped = 0
        assert command.electorate
        host.lease_state.entrust(command.electorate)
        yield lambda: self._drain(host, command.drained)
        waits = (command.acks, command.timeout_seconds, command.wait_point)
        yield lambda: self._mark(host, *waits)
        yield lambda: self._set_acks(host, *waits)
        if len([r for r in self.replicas(host) if r.replica]) < command.acks:
            raise ValueError("its ackers are not connected")
        if not host.lease_state.held(self.now):
            raise ValueError("it has no lease")
        yield lambda: host.lease_state.enforce(self.now, grace=False)
        yield lambda: self._open(host)
        yield lambda: self._prove(host, command.serial)
        yield lambda: setattr(host, "receiving", False)
        yield lambda: self._unfollow(host)

    def _freeze(self, host: Host) -> None:
        """New commits wait; those under way must be acknowledged, or everything is as before."""
        was = host.writable
        host.writable = False
        for _ in range(60):
            if not host.pending:
                return
            self.replicate()
        host.writable = was and host.up
        raise ValueError("commits are under way")

    def _start(self, host: Host) -> None:
        host.status = ServerStatus.STARTING
        had = host.ended_with
        host.regained = had is not None and host.binlog[: len(had)] == had
        host.left, host.inventory = [], None
        host.run += 1
        host.began = host.run
        host.tail = Tail()

    def _cut(self, host: Host, term: int, present: str) -> None:
        """MariaDB's engine shows what it has committed; MySQL's shows that only after the start."""
        have = parse(host.flavor, present)
        lacking = [t for t in host.binlog if not have.has(*t.gtid)]
        committed = [t for t in lacking if t not in host.pending]
        mark = host.held
        pending = mark is not None and not mark.let_through
        if self.agents_see and mark is not None:
            pending = pending and mark.run == host.began
        told = committed and self.engines_tell and host.flavor is Flavor.MARIADB
        if lacking and (not pending or told):
            host.tail = Tail(TailVerdict.COMMITTED, term, reason="it has committed them")
            return
        if lacking:
            host.uuid += 1
        host.binlog = [t for t in host.binlog if t not in lacking]
        host.orphans += committed
        if self.engines_tell and host.flavor is Flavor.MYSQL:
            host.shown += committed
        host.pending = []
        host.tail = Tail(TailVerdict.CUT if lacking else TailVerdict.CLEAN, term)

    def _drain(self, host: Host, upto: str = "") -> None:
        """:raises ValueError: what it waits for does not come"""
        host.binlog += host.relay
        host.relay = []
        for _ in range(60):
            if parse(host.flavor, host.text(host.binlog)).contains(parse(host.flavor, upto)):
                return
            self.replicate()
            host.binlog += host.relay
            host.relay = []
        raise ValueError("it does not receive what it shall have")

    def _unfollow(self, host: Host) -> None:
        host.source, host.applying, host.replica, host.gap = "", False, False, True
        host.receiving = False
        host.refused = host.strange = False

    def _begin_clone(self, host: Host, donor: str) -> None:
        """From here on its previous data no longer counts."""
        host.crash()
        host.pending, host.unfit, host.cloning, host.held_up = [], "it is being cloned", donor, 0
        host.orphans, host.shown, host.held = [], [], None

    def _copy(self, host: Host, donor: Host) -> None:
        """A clone fails if its donor is gone, and sometimes without a reason; it waits for the donor's commits, until
        it is called off."""
        if not donor.up or donor.frozen or not self.linked(host, donor) or self.rng.random() < 0.03:
            host.break_off(f"its clone from {donor.name} failed")
        elif donor.pending and donor.source_on:
            host.held_up += 1
            if host.held_up > HANGS:
                host.break_off(f"nothing came from {donor.name} any more")
        elif self.rng.random() < 0.2:
            self._clone(host, donor)

    def _clone(self, host: Host, donor: Host) -> None:
        host.cloning, host.clone_failed, host.relaxed = "", (), False
        host.binlog = [t for t in donor.binlog if t not in donor.pending]
        host.orphans, host.shown = list(donor.orphans), list(donor.shown)
        host.barred, host.uuid, host.unfit, host.suspect = (
            set(donor.barred),
            host.uuid + 1,
            "",
            False,
        )
        self._start(host)

    def _judge_own(self, host: Host, present: str) -> None:
        """Nothing that is written by hand here is harmless."""
        lacking = parse(host.flavor, host.text([*host.binlog, *host.shown, *host.relay])).subtract(
            parse(host.flavor, present)
        )
        host.judged = as_text(lacking)

    def _rewind(self, host: Host, present: str) -> None:
        """Back to before the first transaction that the primary lacks; sometimes that cannot be done."""
        have = parse(host.flavor, present)
        first = next((i for i, t in enumerate(host.binlog) if not have.has(*t.gtid)), None)
        if first is None and not host.shown:
            return
        host.source, host.relay, host.receiving, host.applying = "", [], False, False
        host.strange = False
        host.held = None
        if host.shown or self.rng.random() < 0.2:
            host.unfit = "it cannot be rewound"
            return
        host.binlog = host.binlog[:first]
        host.uuid += 1
        host.suspect = True

    def _mark(self, host: Host, acks: int, timeout: float, point: WaitPoint) -> None:
        """Before it is opened; on a server that is already open, its next row shows it."""
        held = not host.writable and holds_back(asked(SetAcks(acks, timeout, point)))
        host.held = Held(host.run, acks, Tally(let_through=host.tally)) if held else None

    def _set_acks(
        self, host: Host, acks: int, timeout: float = 0.0, point: WaitPoint = WaitPoint.AFTER_SYNC
    ) -> None:
        if not holds_back(asked(SetAcks(acks, timeout, point))):
            host.held = None
        elif host.held is not None:
            host.held = replace(host.held, acks=acks)
        host.acks, host.source_on, host.relaxed = acks, acks > 0, False
        host.timeout, host.wait_point = timeout, point
        host.weakened = False
        self.judge(host)

    def _prove(self, host: Host, serial: int) -> None:
        """The row is committed only when it is acknowledged; replication is given some time for it."""
        begun = host.state(self.now).semi_sync
        row = self.commit(host)
        for _ in range(60):
            if row not in host.pending:
                if host.stranger or host.released:
                    self.look_for_strangers(host)
                    raise ValueError("a stranger may have acknowledged it")
                ended = host.state(self.now).semi_sync
                if begun.source and not host.timeout and not acknowledged(begun, ended):
                    break
                if begun.source:
                    self.acknowledged += host.doubtful
                    host.doubt, host.doubtful = None, []
                if holds_back(begun):
                    host.held = Held(host.run, begun.acks, begun.tally)
                host.proved = max(host.proved, serial)
                return
            self.replicate()
            if not host.up:
                break
        raise ValueError("no acknowledgement in time")

    def _open(self, host: Host) -> None:
        host.writable = True
        missing = set(self.acknowledged) - set(host.binlog)
        assert not missing, f"{host.name} opens without acknowledged {missing}"
        others = [h.name for h in self.hosts.values() if h is not host and h.answers(self.now)]
        assert not others, f"{host.name} opens while {others} answers"

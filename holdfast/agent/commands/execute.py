"""What each command does to the server. One runs at a time; see ``queue.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from holdfast.agent.clone.clone import Cloning
from holdfast.agent.commands.cut import StoppedServer, cut_pending
from holdfast.agent.commands.inventory import take_inventory
from holdfast.agent.commands.judge import Judging
from holdfast.agent.commands.promote import Promoting
from holdfast.agent.commands.restart import close, end_in_order
from holdfast.agent.disk.marker import Marker
from holdfast.agent.lease.keeper import Keeper
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.member import LocalMember
from holdfast.agent.observe.observer import ServerObserver
from holdfast.agent.promise.domains import Domains
from holdfast.agent.promise.releasing import Releases
from holdfast.agent.promise.strangers import Strangers
from holdfast.agent.rewind.compare import Comparing
from holdfast.agent.rewind.engine import Engine
from holdfast.agent.rewind.rewind import Rewinding
from holdfast.agent.rewind.verify import Verifying
from holdfast.agent.runtime.steps import KnownStep, Steps
from holdfast.agent.start.accounts import ReplicationAccounts
from holdfast.core.commands import (
    Bar,
    Clone,
    Close,
    Command,
    CommitEmpty,
    Compare,
    Cut,
    Drain,
    EndReplicas,
    EndSessions,
    EnsureAccount,
    Equip,
    Fence,
    Fetch,
    Follow,
    Forget,
    Freeze,
    Initialise,
    Inventory,
    Judge,
    MendAccount,
    Promise,
    Promote,
    Prove,
    Restart,
    Rewind,
    SetAcks,
    Start,
    Unbar,
    Verify,
)
from holdfast.core.rules.releases import Release
from holdfast.core.view import MemberState, ServerStatus, Tail, TailVerdict
from holdfast.errors import HoldfastError, Refused
from holdfast.server.base import Deadline, Source

STRANGER = Release("a replica that is no voter acknowledged")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the agent that carry out commands, or may refuse them."""

    accounts: ReplicationAccounts
    cloning: Cloning
    rewinding: Rewinding
    judging: Judging
    comparing: Comparing
    verifying: Verifying
    releases: Releases
    keeper: Keeper
    vouch: Vouch
    strangers: Strangers


class CommandExecutor:
    """Carries out commands. A command relies on the last look at the server, and ends with a new one."""

    def __init__(self, member: LocalMember, parts: Parts, observer: ServerObserver) -> None:
        own, state_dir, flavor = member.own, member.state_dir, member.published.state.flavor
        self._server = member.server
        self._server_run = member.server_run
        self._published = member.published
        self._marker = member.relaxed
        self._replication = member.replication
        self._accounts = parts.accounts
        self._cloning = parts.cloning
        self._rewinding = parts.rewinding
        self._judging = parts.judging
        self._comparing = parts.comparing
        self._verifying = parts.verifying
        self._keeper = parts.keeper
        self._vouch = parts.vouch
        self._releases = parts.releases
        self._strangers = parts.strangers
        parts.strangers.let_through = lambda: parts.releases.let_through(STRANGER)
        self._recovery = Marker(state_dir / "recovering")
        self._engine = Engine(flavor, member.server_run, own.datadir, state_dir)
        self._domains = Domains(state_dir / "domains", flavor)
        self._promoting = Promoting(
            *(member.server, member.published, member.relaxed, parts.releases, parts.keeper),
            *(observer.look, self._domains, parts.strangers),
        )
        self._note = observer.note
        self._own, self._state_dir = own, state_dir

    def perform(
        self, term: int, command: Command, cancelled: Callable[[], bool], steps: Steps
    ) -> None:
        """Carry out the command; every command can be repeated.

        :raises HoldfastError: by consequence
        """
        deadline = Deadline(command.within, cancelled, self._published.clock)
        with self._releases.command():
            self._perform(term, command, deadline, steps)

    def _perform(self, term: int, command: Command, deadline: Deadline, steps: Steps) -> None:
        self._cloning.admit(command, deadline)
        self._comparing.admit(command, deadline)
        self._verifying.admit(command, deadline)
        self._promoting.admit(command, deadline)
        match command:
            case Promise():
                self._promise(deadline, steps)
            case Drain():
                self._drain(command, deadline, steps)
            case Follow():
                self._follow(command, deadline, steps)
            case Promote():
                self._promote(term, command, deadline, steps)
            case SetAcks():
                self._open_primary("set acks")
                self._promoting.set_acks(command, deadline, steps.done)
            case Prove(serial=serial, electorate=electorate):
                self._open_primary("prove")
                # once the row is committed, an older electorate is void
                self._keeper.entrust(electorate)
                self._promoting.prove(term, serial, deadline, steps.done)
                self._keeper.proved()
            case Fence():
                self._server_run.fence(f"fenced by term {term}", deadline.left)
                steps.done("server killed")
            case Cut():
                self._cut(term, command, deadline, steps)
            case Start():
                self._start(steps)
            case Fetch():
                self._fetch(term, command, deadline, steps)
            case Bar(user=user):
                self._primary("bar")
                self._server.bar(user, deadline)
                steps.done("barred")
            case Unbar(user=user):
                # another member may have to fetch from a replica that was primary once
                self._up("unbar")
                self._server.unbar(user, deadline)
                steps.done("let in")
            case Restart():
                self._restart(term, deadline, steps)
            case Clone():
                self._domains.note_all(self._published.state)
                self._cloning.begin(command, deadline, steps.done)
            case Rewind():
                self._rewind(command, deadline, steps)
            case Judge() | Forget():
                self._up("judge what it has")
                self._trusted()
                self._judging.perform(command, deadline, steps.done)
            case CommitEmpty(gtids=gtids):
                self._open_primary("commit empty transactions")
                self._server.commit_empty(gtids.split(","), deadline)
                steps.done("committed")
            case Compare():
                self._up("compare")
                self._comparing.begin(command)
            case Verify():
                self._up("verify")
                self._verifying.begin(command)
            case Inventory():
                self._take_inventory(deadline, steps)
            case Equip() | EnsureAccount() | MendAccount() | Initialise():
                self._accounts.perform(command, deadline, steps.done)
            case Freeze():
                self._freeze(term, command, deadline, steps)
            case Close():
                close(self._server, self._primary("close").writable, deadline, steps.done)
            case EndSessions(sessions=sessions):
                self._up("end sessions")
                self._server.end_sessions(sessions, deadline)
                steps.done("sessions ended")
            case EndReplicas(sessions=sessions, why=why):
                self._primary("end replicas")
                self._strangers.end(sessions, why, deadline)
                steps.done("replicas ended")
            case _:
                assert_never(command)

    def _promise(self, deadline: Deadline, steps: Steps) -> None:
        running = self._server_run.current()
        if running is None:
            return
        if (
            self._server_run.started(running)
            and self._published.state.server is ServerStatus.STARTING
        ):
            return  # it boots without a source, and no command has come since
        self._server.stop_receiver(deadline)
        steps.done(KnownStep.RECEIVER_STOPPED)

    def _follow(self, command: Follow, deadline: Deadline, steps: Steps) -> None:
        state = self._up("follow")
        if state.writable:
            raise Refused(
                f"{state.name} is writable, it may hold what {command.source} lacks: fence it first"
            )
        self._trusted()
        self._rewinding.settle(deadline, steps.done)
        self._marker.mark()
        steps.done("marked as relaxed")
        source = Source(command.host, command.port, self._replication.fresh(), command.heartbeat)
        self._published.change(proved=0, promised=0, frozen=0, stopped=0)
        self._releases.end()
        self._strangers.forget()
        if command.events:
            self._server.stop_events(deadline)  # before sessions that wait for a lock may continue
        else:
            self._server.leave_events(deadline)
        # a frozen server answers no client, and no manager grants it a lease while it changes over, which may take long
        if state.frozen:
            self._keeper.stand_down()
        self._server.follow(source, command.semi_sync, deadline)
        self._keeper.stand_down()
        self._vouch.follows()
        steps.done("following")

    def _fetch(self, term: int, command: Fetch, deadline: Deadline, steps: Steps) -> None:
        """Like :meth:`_follow`, but the promise stands: the source is another member that promised."""
        state = self._up("fetch")
        if state.promised != term:
            raise Refused(f"{state.name} has not promised term {term}: promise, then fetch")
        if state.writable or state.semi_sync.source:
            raise Refused(f"{state.name} is a primary, it may hold what {command.source} lacks")
        self._trusted()
        self._rewinding.settle(deadline, steps.done)
        self._marker.mark()
        self._releases.end()
        source = Source(command.host, command.port, self._replication.fresh())
        self._server.follow(source, False, deadline)
        self._keeper.stand_down()
        steps.done("fetching")

    def _promote(self, term: int, command: Promote, deadline: Deadline, steps: Steps) -> None:
        state = self._up("promote")
        self._published.change(promised=0, frozen=0, stopped=0)
        self._trusted()
        self._keeper.entrust(command.electorate)
        self._rewinding.settle(deadline, steps.done)
        self._promoting.promote(state, term, command, deadline, steps.done)

    def _drain(self, command: Drain, deadline: Deadline, steps: Steps) -> None:
        self._up("drain")
        if command.electorate is not None:
            self._keeper.entrust(command.electorate)
            self._marker.flush_last()
            steps.done("prepared")
        self._server.drain(deadline, command.upto)
        steps.done("applied")

    def _freeze(self, term: int, command: Freeze, deadline: Deadline, steps: Steps) -> None:
        incarnation = self._primary("freeze").incarnation
        self._published.change(frozen=0, stopped=0)

        def stopped(applied: str) -> None:
            self._published.change(during=incarnation, applied=applied, stopped=term)

        within = deadline.within(command.seconds)
        try:
            applied = self._server.freeze(within, steps.done, stopped)
        except HoldfastError:
            self._published.change(stopped=0)
            raise
        self._note(incarnation, writable=False, applied=applied, stopped=term, frozen=term)

    def _restart(self, term: int, deadline: Deadline, steps: Steps) -> None:
        state = self._up("restart")
        self._trusted()
        end_in_order(
            self._server,
            self._server_run,
            state,
            self._replication.fresh(),
            term,
            deadline,
            steps.done,
        )
        self._start(steps)

    def _rewind(self, command: Rewind, deadline: Deadline, steps: Steps) -> None:
        self._up("rewind")
        self._trusted()
        self._releases.end()  # what is in its binlog is committed
        self._domains.note_all(self._published.state)
        self._published.change(judged="", harmless="")
        self._rewinding.part(deadline, steps.done)
        self._rewinding.rewind(command, deadline, steps.done)

    def _cut(self, term: int, command: Cut, deadline: Deadline, steps: Steps) -> None:
        self._ended("its binlog can be cut")
        reason = self._marker.verdict()
        if reason:
            tail = Tail(TailVerdict.UNSAFE, term, reason=reason)
        else:
            tail = cut_pending(
                StoppedServer(
                    self._own.flavor,
                    self._own.binlog_index,
                    self._own.datadir,
                    self._recovery.marked(),
                    self._releases.pending(),
                    lambda tail: self._engine.committed(tail, deadline),
                ),
                self._state_dir / "pending",
                term,
                command,
                deadline,
                steps.done,
                self._domains.note,
            )
        if tail.verdict in (TailVerdict.CLEAN, TailVerdict.CUT):
            self._rewinding.doubt(deadline)
        before = self._published.state.tail
        if tail.verdict is TailVerdict.CLEAN and before.verdict is TailVerdict.CUT:
            # a repeated Cut: what the first one cut is still worth reporting
            tail = replace(before, term=term)
        self._published.change(tail=tail)

    def _take_inventory(self, deadline: Deadline, steps: Steps) -> None:
        self._ended("its files can be read")
        self._published.change(kept=str(take_inventory(self._own, self._state_dir, deadline)))
        steps.done("files read")

    def _ended(self, what: str) -> None:
        if self._server_run.look():
            raise Refused(f"the server is running: {what} only before it starts")
        self._server_run.refuse_while_dying()

    def _start(self, steps: Steps) -> None:
        self._trusted()
        self._marker.forget_former_boot()
        if self._published.state.tail.verdict in (TailVerdict.UNCHECKED, TailVerdict.COMMITTED):
            # COMMITTED: should the server die before it is up, the next agent must find that again
            self._recovery.mark()
        self._server_run.start()
        steps.done("started")

    def _trusted(self) -> None:
        """Refuse to follow or serve with tables and binlog that the host's crash may have left inconsistent."""
        reason = self._marker.verdict()
        if reason:
            term = self._published.state.term
            self._published.change(tail=Tail(TailVerdict.UNSAFE, term, reason=reason))
            raise Refused(reason)

    def _up(self, what: str) -> MemberState:
        state = self._published.state
        if self._server_run.current() is None or not state.up:
            raise Refused(f"cannot {what}: the server of {state.name} is {state.server}")
        self._recovery.clear()
        return state

    def _open_primary(self, what: str) -> None:
        """A command that arrives late must leave a frozen primary as it is."""
        state = self._primary(what)
        if state.frozen or (what == "prove" and not state.writable):
            raise Refused(f"cannot {what}: {state.name} is no open primary")

    def _primary(self, what: str) -> MemberState:
        """Refuse on a replica: a row of its own would make it diverge."""
        state = self._up(what)
        if state.replication.source:
            raise Refused(
                f"cannot {what}: {state.name} follows {state.replication.source}, it is no primary"
            )
        return state

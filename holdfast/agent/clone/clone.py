"""The Clone command: all data of this member is replaced by a copy of another member's.

A marker stands in the state directory from before the old data is touched until the copy is whole. While it does, the
server must not be started with what is there. If the agent, the server, the donor or the disk ends a clone, it begins
again from the start.

1. *Judge* what no other member has (``unique.py``), and save it.
2. *Mark*, and end the server.
3. *Fetch* into a folder beside the old files.
4. *Exchange*: the old files go, the new ones take their place.
5. *Start*, finish over SQL, make sure. Then *unmark*.

MariaDB fetches a stream from the donor's agent. For MySQL a separate server makes the copy (``scratch_server.py``). The
old files stay until the copy is whole, unless the file system has no room for both: then they are removed first, and
the agent reports that.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator

from holdfast.agent.clone.clone_marker import CloneMarker, copied, remember, save_unique
from holdfast.agent.clone.fetch import NO_ROOM, DonorAgent, fetch
from holdfast.agent.clone.scratch_server import copy_from, end_former, scratch_server
from holdfast.agent.clone.unique import Holdings, judge
from holdfast.agent.disk import datadir as files
from holdfast.agent.disk.marker import Marker
from holdfast.agent.member import LocalMember
from holdfast.agent.runtime.job import Job, Jobs
from holdfast.core.commands import Clone, Command, Cut, Fence, Start
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.view import MemberState
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused, Unreachable
from holdfast.http.wire import command_name
from holdfast.log import say
from holdfast.server.base import Deadline, Source
from holdfast.server.data.clone import Recipient

KILL_SECONDS = 30.0
FINISH_SECONDS = 60.0
LOOK_SECONDS = 0.25
ASK_SECONDS = 30.0
NEW_SERVER_BYTES = 200 * 1024 * 1024
"""Size of a MySQL server that holds no data yet: its logs and system tables."""
MOST_FAILURES = 16
"""The number of failed clones that are remembered, to choose another donor."""
MOST_NAMED = 5
EMPTY = "its data directory is empty"

Done = Callable[[str], None]

logger = logging.getLogger(__name__)


class Cloning:
    """:param was_reset: whether an operator has reset the binary log of this member
    :param look: observes the server, and publishes what it finds
    :ivar forget: called once the copy is whole: what was remembered of the old data is void"""

    def __init__(
        self,
        member: LocalMember,
        jobs: Jobs,
        was_reset: Callable[[], bool],
        look: Callable[[], None],
    ) -> None:
        self._published = member.published
        self._jobs = jobs
        self._server_run = member.server_run
        self._server = member.server
        self._own = member.own
        self._admin = member.admin
        self._replication = member.replication
        self._state_dir = member.state_dir
        self._shown = member.shown
        self._relaxed = member.relaxed
        self._was_reset = was_reset
        self._look = look
        self._marker = CloneMarker(member.state_dir)
        self._now: Clone | None = None
        self._failed: tuple[str, ...] = ()
        self.forget: list[Callable[[], None]] = []

    @property
    def running(self) -> bool:
        return self._now is not None

    @property
    def half(self) -> bool:
        """Whether a clone has begun, and is not whole."""
        return self.running or bool(self._marker.unfit())

    def unfit(self) -> str:
        """Why the data here must not be started, or ""."""
        empty = files.is_empty(self._own.datadir)
        return self._marker.unfit() or (EMPTY if empty else "")

    def publish(self) -> None:
        """Publish why the member must be cloned, if it must; called now and then while its server is down."""
        if self._now is not None:
            return
        unfit, said = self.unfit(), self._published.state.unfit
        if unfit:
            self._published.change(unfit=unfit)
        elif said == EMPTY:  # an operator has put data there
            self._published.change(unfit="")

    def came_up(self) -> None:
        """A running server has data: a reason from before its start that there were none is void."""
        if self._published.state.unfit == EMPTY and self._now is None:
            self._published.change(unfit="")

    def admit(self, command: Command, deadline: Deadline) -> None:
        """Called with every command before it is carried out. A fence cancels a clone.

        :raises Refused: the server is being cloned, or must be: nothing that it reports counts, and it must not be
            started
        """
        now, name = self._now, self._published.state.name
        match command:
            case Clone():
                return
            case Fence():
                if now is not None:
                    self._jobs.cancel("a fence")
                    if not self._jobs.wait(deadline.left):
                        raise DeadlinePassed("calling off the clone", deadline.seconds)
                return
        what = f"cannot {command_name(command)}: {name}"
        if now is not None:
            raise Refused(f"{what} is being cloned from {now.donor}")
        unfit = self.unfit() if isinstance(command, Start | Cut) else self._marker.unfit()
        if unfit:
            self._published.change(unfit=unfit)
            raise Refused(f"{what} has to be cloned from another member: {unfit}")

    def begin(self, command: Clone, deadline: Deadline, done: Done) -> None:
        """Returns when the clone is under way. The same request repeated leaves a running clone alone.

        :raises Refused: nothing was done
        """
        now = self._now
        if now is not None and now.donor == command.donor:
            return
        try:
            present = parse(self._published.state.flavor, command.present)
        except ValueError as error:
            raise BadInput("present", str(error)) from None
        donor = DonorAgent(command.donor, command.agent, self._shown.to(command.agent))
        self._check_donor(donor.state(deadline), command)
        self._refuse_half_copies(donor, deadline)
        done("donor asked")
        if now is not None or self._jobs.running:
            self._jobs.cancel(f"a clone from {command.donor}")
            if not self._jobs.wait(deadline.left):
                raise DeadlinePassed("calling off what is under way", deadline.seconds)
            done("called off")
        if not self._marker.unfit():
            try:
                self._give_up_old(command, present, deadline, done)
            except Refused as error:
                self._published.change(clone_refused=str(error))
                raise
        self._marker.mark(command.donor)
        self._server_run.kill_and_wait(f"cloned from {command.donor}", deadline.left)
        self._server.close()
        done("marked, server ended")
        self._published.change(
            unfit=f"it is being cloned from {command.donor}",
            promised=0,
            cloning=command.donor,
            clone_refused="",
        )
        self._now = command
        try:
            self._jobs.start(
                f"cloning from {command.donor}", lambda job: self._run(job, command, donor)
            )
        except Refused:
            self._now = None
            self._published.change(cloning="")
            raise

    def _check_donor(self, donor: MemberState, command: Clone) -> None:
        own = self._published.state
        if donor.name == own.name:
            raise Refused(f"{own.name} cannot be cloned from itself")
        if donor.flavor is not own.flavor:
            raise Refused(f"{donor.name} runs {donor.flavor}, and {own.name} {own.flavor}")
        if not donor.up:
            raise Refused(f"{donor.name} cannot give a copy: its server is {donor.server}")
        if donor.unfit or donor.suspects:
            why = donor.unfit or f"{', '.join(donor.suspects)} was rewound and not compared yet"
            raise Refused(f"{donor.name} has no data to copy: {why}")

    def _refuse_half_copies(self, donor: DonorAgent, deadline: Deadline) -> None:
        """MySQL's clone copies InnoDB tables only, but its GTIDs claim that all others were copied, too."""
        name = self._published.state.name
        if self._published.state.flavor is Flavor.MYSQL and (left := donor.left_empty(deadline)):
            why = (
                f"{name} is not cloned: MySQL would leave the tables {', '.join(left[:MOST_NAMED])} empty, as they are "
                "not InnoDB's: ALTER TABLE … ENGINE=InnoDB on the primary, or drop them"
            )
            self._published.change(clone_refused=why)
            raise Refused(why)

    def _give_up_old(
        self, command: Clone, present: GtidSet, deadline: Deadline, done: Done
    ) -> None:
        """Judge and save what no other member has, before and after the server has been ended.

        :raises Refused: the server holds what cannot be saved; if it ran, it continues to run
        """
        state = self._published.state
        running = self._server_run.current() is not None
        if state.up and state.writable:
            raise Refused(f"{state.name} takes writes: fence it before it is cloned")
        executed: GtidSet | None = None
        if state.up:
            seen = self._server.observe(deadline)
            if seen.writable or seen.semi_sync.source:
                raise Refused(f"{state.name} serves as a primary: fence it before it is cloned")
            executed = parse(state.flavor, seen.applied)
        elif running and not command.discard:
            raise Refused(
                f"the server of {state.name} is {state.server} and does not answer: fence it"
            )
        found = self._judge(present, executed, deadline, command.discard)
        done("holdings judged")
        if running:
            self._server_run.kill_and_wait(f"cloned from {command.donor}", deadline.left)
            done("server ended")
            if found.unique:  # the server's files do not change any more
                found = self._judge(present, executed, deadline, command.discard)
        if found.unique:
            try:
                folder = self._state_dir / "pending"
                now = deadline.clock.now()
                saved = save_unique(self._own.binlog_index, present, folder, now)
            except (Refused, OSError) as error:
                if not command.discard:
                    raise Refused(f"what only {state.name} has cannot be saved: {error}") from error
            else:
                say(logger, f"what only {state.name} has was saved", file=saved)
            done("saved")

    def _judge(
        self, present: GtidSet, executed: GtidSet | None, deadline: Deadline, discard: bool
    ) -> Holdings:
        state = self._published.state
        own = self._own
        found = judge(
            state.flavor,
            own.datadir,
            own.binlog_index,
            present,
            executed,
            copied(self._state_dir, own.datadir, state.flavor),
            lambda: deadline.check("reading the binlogs"),
            ours=self._was_reset() or self._relaxed.of_this_cluster(),
        )
        if found.obstacle and not discard:
            raise Refused(
                f"{state.name} is not cloned, as its data may be the only copy: {found.obstacle}. "
                f"If it may be lost: holdfast member clone {state.name} --discard"
            )
        return found

    # what the background does

    def _run(self, job: Job, command: Clone, donor: DonorAgent) -> None:
        try:
            with self._alone(job):
                match self._published.state.flavor:
                    case Flavor.MARIADB:
                        had = self._mariadb(job, command, donor)
                    case Flavor.MYSQL:
                        had = self._mysql(job, command, donor)
            remember(self._state_dir, self._own.datadir, had)
            for forget in self.forget:
                forget()
            for path in (self._relaxed.path, self._state_dir / "recovering"):
                Marker(path).clear()
            self._look()  # the data must be known before the member counts
            self._marker.clear()
            self._failed = ()
            self._published.change(unfit="", suspects=(), differs=(), clone_failed=())
        except BaseException as error:
            with contextlib.suppress(HoldfastError):
                self._server_run.kill_and_wait(
                    f"its clone from {command.donor} failed", KILL_SECONDS
                )
            files.drop(self._own.datadir)
            if not job.cancelled:
                self._failed = (*self._failed, command.donor)[-MOST_FAILURES:]
            with contextlib.suppress(HoldfastError):
                self._marker.mark(command.donor, job.called_off or str(error))
            self._published.change(unfit=self._marker.unfit(), clone_failed=self._failed)
            raise
        finally:
            self._now = None
            self._published.change(cloning="")

    def _mariadb(self, job: Job, command: Clone, donor: DonorAgent) -> GtidSet:
        files.drop(self._own.datadir)
        incoming = files.fresh(self._own.datadir)
        state = fetch(job, donor, self._own, incoming, self._state_dir, self._lock_fd)
        self._exchange(job)
        self._start(job)
        recipient = Recipient(Flavor.MARIADB, self._own.socket, self._admin)
        with contextlib.closing(recipient):
            self._until_up(job, recipient)
            return recipient.adopt_history(state, job.deadline(FINISH_SECONDS))

    def _mysql(self, job: Job, command: Clone, donor: DonorAgent) -> GtidSet:
        own = self._own
        files.drop(own.datadir)
        wanted = donor.data_bytes(job.deadline(ASK_SECONDS)) + NEW_SERVER_BYTES
        if files.make_room(own.datadir, own.binlog_index, wanted):
            job.what = f"{job.what} ({NO_ROOM})"
            say(logger, f"{job.what}", logging.WARNING)
        source = Source(command.host, command.port, self._replication.fresh())
        incoming = own.datadir / files.INCOMING
        with scratch_server(job, own, self._admin, self._state_dir, self._lock_fd) as recipient:
            copy_from(job, recipient, source, donor, incoming)
        self._exchange(job)
        self._start(job)
        recipient = Recipient(Flavor.MYSQL, own.socket, self._admin)
        with contextlib.closing(recipient):
            self._until_up(job, recipient)
            return recipient.finish_clone(job.deadline(FINISH_SECONDS))

    def _exchange(self, job: Job) -> None:
        job.check()
        if self._server_run.look() is not None:
            raise Refused("somebody has started the server: stop it, and clone again")
        files.take_place(self._own.datadir, self._own.binlog_index)

    def _start(self, job: Job) -> None:
        job.check()
        self._server_run.start()

    def _until_up(self, job: Job, recipient: Recipient) -> None:
        """Wait until the server is up, however long its recovery takes, but not longer than its process lives."""
        while True:
            try:
                return recipient.ping(job.deadline(5.0))
            except Unreachable:
                if self._has_ended():
                    raise Refused(
                        f"the server ended when it was started on the copy: {self._published.state.why}"
                    ) from None
            job.pause(0.05)

    def _has_ended(self) -> bool:
        return self._server_run.current() is None

    @contextlib.contextmanager
    def _alone(self, job: Job) -> Iterator[None]:
        """Take the lock. A tool that a killed agent left running here holds the lock until it ends."""
        descriptor = os.open(self._state_dir / "cloning.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    end_former(self._own.datadir)
                    job.pause(LOOK_SECONDS)
            self._lock_fd = descriptor
            yield
        finally:
            os.close(descriptor)

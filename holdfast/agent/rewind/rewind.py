"""The Rewind command: what this server has committed and the primary lacks is saved, undone and forgotten.

The order lets it end anywhere and be repeated:

1. *Find* the transactions in the binlogs, and *save* them, also when it turns out that they cannot be undone.
2. *Judge* whether they can be undone. If not, the member is unfit: it is cloned.
3. *Note* on disk that a rewind begins, of which tables, and which GTID state it leads to.
4. *Undo* the rows, in one transaction that leaves a note in the server.
5. *Repair* the GTID state; the note in the server is removed, then the one on disk.

A server that ends between 4 and 5 has undone its rows and not its GTIDs, or has no GTIDs at all. It must not follow any
server like that, so a command that makes it follow calls :meth:`Rewinding.settle` first.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.agent.disk.datadir import forget_uuid
from holdfast.agent.disk.saved import save_errant
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.settling import Settling
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.pending import errant as finding
from holdfast.binlog.pending.errant import Check, Errant, Examination
from holdfast.binlog.undo.describe import ColumnName
from holdfast.binlog.undo.rewind import format_statement, undo_statements
from holdfast.core.commands import Rewind
from holdfast.core.gtid import Flavor, GtidSet, Interval, parse
from holdfast.core.view import Receiver, Tail
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused
from holdfast.server.base import Deadline
from holdfast.server.data.digest import table_name
from holdfast.server.data.rewind import Disturbed, Rewinder, RewindRepair, Undo, Unrewindable

Done = Callable[[str], None]

LOOK_SECONDS = 1.0
"""How long a look after a failure may take: somebody may be waiting for the command to end."""


class Rewinding:
    """:ivar saved: folder of what is saved"""

    def __init__(
        self,
        published: PublishedState,
        server_run: ServerRun,
        rewinder: Rewinder,
        fitness: Fitness,
        settling: Settling,
        index: Path,
        datadir: Path,
        saved: Path,
    ) -> None:
        self.saved = saved
        self._settling = settling
        self._published = published
        self._server_run = server_run
        self._name = published.state.name
        self._flavor = published.state.flavor
        self._rewinder = rewinder
        self._fitness = fitness
        self._index = index
        self._datadir = datadir

    def doubt(self, deadline: Deadline) -> None:
        """See :meth:`Settling.doubt`."""
        self._settling.doubt(deadline)

    def settle(self, deadline: Deadline, done: Done) -> None:
        """Complete or revert a rewind that was interrupted; call before the server follows any other.

        :raises Refused: the member is unfit
        """
        self._settling.settle(deadline, done)
        repair = self._fitness.repair
        if repair is None:
            return
        if self._rewinder.is_undone(repair, deadline):
            self._repair(repair, deadline)
            done("interrupted rewind ended")
        else:
            self._fitness.end_rewind()

    def part(self, deadline: Deadline, done: Done) -> None:
        """Make the server follow no other. If it follows one, or acknowledges, it is restarted: what it received counts
        no longer from then on, as it is another incarnation.

        MySQL is always restarted: the GTIDs that will be undone may be on a server that is away, so this one must never
        issue them again with another content. MariaDB's promotions begin at the next million for that.

        :raises Refused: it is writable
        """
        state = self._published.state
        if state.writable:
            raise Refused(f"{state.name} is writable: fence it before it is rewound")
        replication, semi_sync = state.replication, state.semi_sync
        busy = replication.applier or replication.receiver is not Receiver.OFF
        if busy or semi_sync.replica or semi_sync.source or self._flavor is Flavor.MYSQL:
            self._server_run.kill_and_wait("started anew to be rewound", deadline.left)
            if self._flavor is Flavor.MYSQL:
                forget_uuid(self._datadir)
            self._server_run.start()
            deadline.wait_until("waiting for the server", self._is_up, 0.01)
            done("started anew")
        self._published.change(proved=0, promised=0)
        self._rewinder.leave(deadline)
        done("follows nobody")

    def _is_up(self) -> bool:
        if self._server_run.current() is None:
            raise Refused(f"the server of {self._name} ended: {self._published.state.why}")
        return self._published.state.up

    def rewind(self, command: Rewind, deadline: Deadline, done: Done) -> None:
        """Rewind a server that :meth:`part` has made follow no other.

        If that is not possible, the member is unfit from then on, and what was found is saved.

        :raises BadInput: ``present`` is no GTID set; :raises Refused: the member is unfit; or nothing was done
        """
        try:
            present = parse(self._flavor, command.present)
        except ValueError as error:
            raise BadInput("present", str(error)) from None
        self.settle(deadline, done)
        was, slave_pos = self._rewinder.gtid_state(deadline)
        unknown = parse(self._flavor, was).subtract(present)
        if not unknown:
            return

        def check() -> None:
            if not deadline.left:  # the next attempt would take as long
                raise self._unfit(f"to read what {command.primary} lacks takes too long")
            deadline.check("reading the binlogs")

        errant = finding.find(self._index, present, check)
        done("binlog read")
        if errant.transactions:
            self._save(errant, command, deadline, check)
            done("saved")
        examination = finding.examine(errant, check)
        repair = self._plan(errant, was, slave_pos, present)
        reason = (
            examination.obstacle
            or ("" if errant.transactions else "they are not in its binary logs any more")
            or (
                ""
                if repair
                else f"its GTIDs before them are not known, or {command.primary} lacks some"
            )
            or self._rewinder.obstacle(examination.tables, deadline)
        )
        done("examined")
        if reason or repair is None:
            what = errant if errant.transactions else f"transactions ({unknown})"
            raise self._unfit(f"{what} that {command.primary} lacks cannot be rewound: {reason}")
        self._undo(errant, examination, repair, deadline, done)

    def forget(
        self,
        errant: Errant,
        was: str,
        slave_pos: str,
        present: GtidSet,
        following: bool,
        deadline: Deadline,
    ) -> None:
        """Remove what changes nothing, and ends the binlog, from the GTID state (MariaDB); the applier must be stopped.

        :param following: the receiver runs, so the applier's position cannot be set, and need not be
        :raises Disturbed: another session has logged more meanwhile: to be judged and requested again
        :raises Refused: nothing was done
        """
        planned = self._plan(errant, was, slave_pos, present)
        if planned is None:
            raise Refused(f"the GTIDs before {errant} are not known, or the primary lacks some")
        repair = replace(planned, rows=False)
        same = parse(self._flavor, repair.slave_pos) == parse(self._flavor, slave_pos)
        if following and not same:
            raise Refused(f"{errant} is not where the applier stands: {slave_pos}")
        with self._rewinder.flushing_kept(deadline):
            self._fitness.begin_rewind(repair, ())
            try:
                self._rewinder.repair(repair, deadline)
            except HoldfastError:
                with contextlib.suppress(
                    HoldfastError
                ):  # otherwise that is settled before anything else is done
                    if not self._rewinder.is_undone(repair, deadline.to_its_end(LOOK_SECONDS)):
                        self._fitness.end_rewind()
                raise
            self._fitness.end_rewind()

    def _undo(
        self,
        errant: Errant,
        examination: Examination,
        repair: RewindRepair,
        deadline: Deadline,
        done: Done,
    ) -> None:
        touched = examination.tables | self._rewinder.cascades(examination.tables, deadline)
        self._fitness.begin_rewind(repair, tuple(map(table_name, touched)))
        undo = Undo(
            layout=format_statement(errant),
            statements=lambda one_by_one: undo_statements(errant, one_by_one),
            largest=examination.largest,
        )
        deadline.check("undoing")
        try:
            self._rewinder.undo(repair, undo, deadline)
        except Unrewindable as error:
            raise self._unfit(f"{errant} cannot be rewound: {error}") from error
        except DeadlinePassed as error:
            if self._rewinder.is_undone(repair, Deadline(5.0, deadline.cancelled, deadline.clock)):
                raise
            raise self._unfit(f"to rewind {errant} takes too long: {error}") from error
        done("undone")
        self._repair(repair, deadline)
        done("GTIDs repaired")

    def _repair(self, repair: RewindRepair, deadline: Deadline) -> None:
        try:
            self._rewinder.repair(repair, deadline)
        except Disturbed as error:
            raise self._unfit(str(error)) from error
        self._fitness.end_rewind()

    def _save(self, errant: Errant, command: Rewind, deadline: Deadline, check: Check) -> None:
        heading = (
            f"What {self._name} had committed and the primary, {command.primary}, lacks: {errant}.",
            "It is taken back here; nobody else has it. Times are UTC.",
        )

        def columns(schema: str, table: str) -> Sequence[ColumnName]:
            found = self._rewinder.columns(schema, table, deadline)
            return [ColumnName(name, kind) for name, kind in found]

        now = deadline.clock.now()
        saved = save_errant(errant, self.saved, now, heading, columns, check)
        # only to publish it: a running server has no verdict on its binlog's end
        term = self._published.state.term
        tail = Tail(term=term, saved=str(saved.text), transactions=errant.transactions)
        self._published.change(tail=tail)

    def _plan(
        self, errant: Errant, was: str, slave_pos: str, present: GtidSet
    ) -> RewindRepair | None:
        """The GTID state as it was before the first of them; None when it is not known."""
        if self._flavor is Flavor.MYSQL:
            becomes, pos = str(parse(self._flavor, was).subtract(errant.undone)), ""
        elif errant.before is None:
            return None
        else:
            heads = _heads(errant.before, parse(self._flavor, slave_pos), errant.undone)
            becomes, pos = _in_order(errant.before), ",".join(heads)
        if not present.contains(parse(self._flavor, f"{becomes},{pos}")):
            return None
        name = hashlib.sha256(f"{was}\n{becomes}\n{pos}".encode()).hexdigest()[:32]
        return RewindRepair(name, was, becomes, pos)

    def _unfit(self, reason: str) -> Refused:
        self._fitness.declare_unfit(reason)
        return Refused(reason)


def _in_order(state: GtidSet) -> str:
    """``gtid_binlog_state``: MariaDB takes the last GTID that it lists for a domain as the domain's head."""
    return ",".join(
        f"{stream}-{spans[-1][1]}" for stream, spans in sorted(_entries(state), key=_age)
    )


def _heads(before: GtidSet, applied: GtidSet, undone: GtidSet) -> Iterable[str]:
    """``gtid_slave_pos``: the last of each domain; for a domain without transactions in the binlog, its former
    value."""
    kept = [entry for entry in _entries(applied) if not undone.has(entry[0], entry[1][-1][1])]
    last: dict[str, str] = {}
    for stream, spans in sorted([*_entries(before), *kept], key=_age):
        last[stream.split("-")[0]] = f"{stream}-{spans[-1][1]}"
    return last.values()


def _entries(gtids: GtidSet) -> list[tuple[str, tuple[Interval, ...]]]:
    return list(gtids.streams.items())


def _age(entry: tuple[str, tuple[Interval, ...]]) -> tuple[int, int]:
    stream, spans = entry
    return int(stream.split("-")[0]), spans[-1][1]

"""Settings on which the promise depends are checked with each look: what an operator has changed is put back.

*Flushing.* A primary flushes each commit, in binlog and InnoDB. With ``innodb_flush_log_at_trx_commit = 0`` a server
that is killed loses a second from InnoDB that its binlog has: it comes back with GTIDs whose rows it lacks, and nothing
would show it. So the agent first makes a note on disk; then it puts the setting back and has the redo log flushed; only
then it removes the note. A server that dies in between is not started again before it was cloned. Without a redo log
(MySQL: ``ALTER INSTANCE DISABLE INNODB REDO_LOG``) a server that is killed does not start at all: it is switched on
again. With 2, or a changed ``sync_binlog``, only the end of the host would lose something: ``flushing.RelaxedMarker``
is for that. On a replica, 0 alone is too little.

*The server's number.* A replica skips events that bear its own number. If an operator changes a primary's number to
that of a voter, the voter acknowledges what it throws away. (A voter's own number: ``receipts.py``.)

*What shuts clients out.* With ``offline_mode`` (MySQL) a primary refuses all clients, with ``transaction_read_only``
(MariaDB: ``tx_read_only``) every write of a new session, while the agent's own sessions work as ever.

A server that dies before the next look (0.25 s) after such a statement is not noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.agent.promise.hands import Hands
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.errors import Refused
from holdfast.server.base import Deadline, Observation, Server

PUT_BACK_SECONDS = 1.0
PRIMARY = {"sync_binlog": 1, "innodb_flush_log_at_trx_commit": 1}
REPLICA = {"innodb_flush_log_at_trx_commit": 2}


class KeptSettings:
    """:param has_opened: whether a run of the server is open because its agent opened it
    :param unfit: called with why the data must be replaced
    """

    def __init__(
        self,
        server: Server,
        published: PublishedState,
        relaxed: RelaxedMarker,
        state_dir: Path,
        has_opened: Callable[[str], bool],
        unfit: Callable[[str], None],
    ) -> None:
        self._server = server
        self._published = published
        self._relaxed = relaxed
        self._path = state_dir / "unflushed"
        self._has_opened = has_opened
        self._unfit = unfit
        self._noted = self._path.exists()
        self._number = ("", 0)
        self._hands = Hands(published, "settings")
        self._lock = threading.Lock()

    def seen(self, found: Observation) -> None:
        """To be called with each look before it is published.

        :raises HoldfastError: what was changed could not be put back
        """
        run = self._published.state.incarnation
        if not self._published.state.term:
            return  # the server was not adopted yet
        primary = found.writable and self._has_opened(run)
        with self._lock:
            wanted: Mapping[str, int] = self._lowered(found, primary)
            former = self._number
            if former[0] == run and former[1] != found.server_id and primary:
                wanted = {**wanted, "server_id": former[1]}
            else:
                self._number = (run, found.server_id)
            if primary:
                wanted = {**wanted, **dict.fromkeys(found.shutting_out, 0)}
            if wanted:
                self._put_back(wanted, found, primary)
            else:
                self._hands.well()
            if (
                not wanted and self._noted
            ):  # noted by a former agent, which ended before it had finished
                self._server.put_back({}, self._deadline())
                self._forget()

    def before_start(self) -> None:
        """:raises Refused: the data must be replaced"""
        if self._noted and not self._published.state.cloning:
            why = (
                "its server died while InnoDB did not flush its redo log (innodb_flush_log_at_trx_commit = 0, or no "
                "redo log at all): its tables may lack what its binlog has"
            )
            self._unfit(why)
            raise Refused(f"cannot start: {why}; to trust it as it is, remove {self._path}")

    def ended(self) -> None:
        """The server shut down in order, or its data was replaced: everything is on disk."""
        with self._lock:
            if self._noted:
                self._forget()

    def _lowered(self, found: Observation, primary: bool) -> dict[str, int]:
        if primary and (found.sync_binlog, found.redo_flush) != (1, 1):
            return PRIMARY
        return REPLICA if found.redo_flush <= 0 else {}

    def _put_back(self, wanted: Mapping[str, int], found: Observation, primary: bool) -> None:
        if found.redo_flush <= 0:
            self._note()
        elif wanted.keys() & PRIMARY.keys():
            self._relaxed.mark()
        self._server.put_back(wanted, self._deadline())
        self._hands.put_back(_changed(wanted, found))
        if self._noted:
            self._forget()
        if primary:
            self._relaxed.clear_in_background()

    def _deadline(self) -> Deadline:
        return Deadline(PUT_BACK_SECONDS, clock=self._published.clock)

    def _note(self) -> None:
        """:raises Refused: it cannot be written"""
        try:
            replace_durably(self._path, f"{self._published.state.incarnation}\n")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error
        self._noted = True

    def _forget(self) -> None:
        remove_durably(self._path)
        self._noted = False


def _changed(wanted: Mapping[str, int], found: Observation) -> str:
    """Describe what was changed.

    :param wanted: what is put back
    """
    now = {
        "sync_binlog": found.sync_binlog,
        "innodb_flush_log_at_trx_commit": found.redo_flush,
        "server_id": found.server_id,
        **dict.fromkeys(found.shutting_out, 1),
    }
    flushing = "innodb_flush_log_at_trx_commit"
    changed = ", ".join(
        "no redo log (ALTER INSTANCE DISABLE INNODB REDO_LOG)"
        if name == flushing and found.redo_flush < 0
        else f"{name} = {now[name]}"
        for name, value in wanted.items()
        if now[name] != value
    )
    if wanted.keys() <= {*found.shutting_out}:
        return f"{changed} was set by hand, which kept clients from writing"
    return f"{changed} was set by hand, on which the promise does not hold"

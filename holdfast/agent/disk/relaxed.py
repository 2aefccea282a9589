"""Remembers that the server runs with relaxed flushing, so that its data is not trusted after its host went down.

A replica does not flush each transaction (``sync_binlog=0``, ``innodb_flush_log_at_trx_commit=2``). Killing its process
loses nothing: the kernel has the data. But when the host goes down, tables and binlog may each lose a different end,
and crash recovery cannot make them consistent.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.binlog.events.group import FileEnd
from holdfast.binlog.events.reader import STOP, Unreadable, open_binlog
from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.files.index import read_index
from holdfast.errors import Refused


class RelaxedMarker:
    """A file that holds the kernel's boot id, and whose data it is, for as long as something may not have been flushed.

    :param data: tells this cluster's data from any other; "" where nothing does
    :ivar path: an operator who starts the server as it is nevertheless removes this file first
    """

    def __init__(
        self,
        state_dir: Path,
        binlog_index: Path,
        boot_id: Callable[[], str],
        data: Callable[[], str] = lambda: "",
    ) -> None:
        self.path = state_dir / "relaxed"
        self._index = binlog_index
        self._boot_id = boot_id
        self._data = data
        self._lock = threading.Lock()
        self._marks = 0

    def mark(self) -> None:
        """Call before flushing is relaxed; on disk when this returns.

        :raises Refused: when it cannot be written
        """
        with self._lock:
            self._marks += 1
            wanted = [self._boot_id(), self._data() or "?"]
            if self._lines() == wanted:
                return
            try:
                replace_durably(self.path, "\n".join(wanted) + "\n")
            except OSError as error:
                raise Refused(f"cannot write {self.path}: {error.strerror}") from error

    def clear_in_background(self) -> None:
        """Call once every commit is flushed again: the server is a primary that has proved a row, or it shut down."""
        if self._marked_at():
            threading.Thread(target=self._clear, name="flush binlogs", daemon=True).start()

    def flush_last(self) -> None:
        """Flush the server's last binlog, so that its next durable commit need not wait for that. If this fails, that
        commit will report it."""
        with contextlib.suppress(OSError, IndexError, Refused):
            _flush(read_index(self._index)[-1])

    def verdict(self) -> str:
        """Why the data on disk cannot be trusted, or "" when nothing speaks against it."""
        marked = self._marked_at()
        if marked in ("", self._boot_id()) or _shut_down(self._index):
            return ""
        return (
            "the host went down while this server ran with relaxed flushing; its tables and its binlog may disagree: "
            f"clone it from another member (or, to trust it as it is, remove {self.path})"
        )

    def of_this_cluster(self) -> bool:
        """Whether the data that cannot be trusted is the data that this agent's server ran with. If so, transactions
        that its binlogs no longer contain, as they were not flushed, had come from the cluster."""
        if not self.verdict():
            return False
        data = self._data()
        return bool(data) and self._lines()[1:] == [data]

    def forget_former_boot(self) -> None:
        """Call before a start, when the verdict was that the data can be trusted: it is on disk."""
        with self._lock:
            if self._marked_at() not in ("", self._boot_id()):
                remove_durably(self.path)

    def _clear(self) -> None:
        with self._lock:
            marks = self._marks
        try:
            self._flush_binlogs()
        except (OSError, Refused):
            return  # the marker stays, which is safe
        with self._lock:
            # flushing was relaxed again in the meantime
            if self._marks == marks:
                with contextlib.suppress(
                    OSError
                ):  # a loss of power may bring it back: safe as well
                    remove_durably(self.path)

    def _flush_binlogs(self) -> None:
        """Flush all binlogs. A file that the server rotated away from may never have been flushed; the last one was, by
        its commit."""
        for file in (*read_index(self._index), self._index):
            _flush(file)
        sync_folder(self._index.parent)

    def _marked_at(self) -> str:
        return next(iter(self._lines()), "")

    def _lines(self) -> list[str]:
        try:
            # damaged: it does not equal this boot's id, so the data is not trusted
            text = self.path.read_bytes().decode(errors="replace").strip()
        except FileNotFoundError:
            return []
        return text.splitlines() or ["?"]


def _flush(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _shut_down(index: Path) -> bool:
    """Whether the last binlog was closed by an orderly shutdown, as when an operator restarted the host."""
    try:
        files = read_index(index)
        if not files:
            return False
        with open_binlog(files[-1]) as log:
            if log.format.in_use:
                return False
            ends = [item for item in log.groups() if isinstance(item, FileEnd)]
            return bool(ends) and ends[-1].last_type == STOP
    except (OSError, Refused, Unreadable):
        return False

"""The Cut command: what the new primary lacks is saved, then removed from a stopped server's binlog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.agent.term import replace_durably, sync_folder
from holdfast.binlog import cut, save, tail
from holdfast.binlog.gtid_event import Gtid
from holdfast.core.commands import Cut, Promote, SetAcks
from holdfast.core.gtid import Flavor, parse
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync, Tail, TailVerdict
from holdfast.errors import BadInput, Refused
from holdfast.server.base import Deadline


def cut_pending(
    flavor: Flavor,
    index: Path,
    datadir: Path,
    pending: Path,
    term: int,
    command: Cut,
    deadline: Deadline,
    done: Callable[[str], None],
    recovering: bool,
    was_primary: bool,
    note: Callable[[frozenset[str]], None],
) -> Tail:
    """Judge the binlog, and cut its pending tail if it has one. Interrupted anywhere, it can be repeated.

    :param pending: the folder that keeps what was cut
    :param recovering: a start that took the binlog as it was may have got as far as committing its tail
    :param was_primary: its own transactions waited for acknowledgements
    :param note: told of the streams of what is taken back, before it is: see ``domains.py``
    :raises BadInput: ``present`` is no GTID set
    """
    try:
        present = parse(flavor, command.present)
    except ValueError as error:
        raise BadInput("present", str(error)) from None

    def has(gtid: Gtid) -> bool:
        deadline.check("reading the binlog")
        return present.has(gtid.stream, gtid.sequence)

    if not index.exists() and not _binlogs_beside(index):
        return Tail(TailVerdict.CLEAN, term)
    try:
        found = tail.inspect(index, has)
    except Refused as error:
        deadline.check("reading the binlog")
        return Tail(TailVerdict.UNSAFE, term, reason=str(error))
    done("binlog read")
    if not isinstance(found, tail.Clean) and found.summary is not None:
        note(found.summary.streams)
    match found:
        case tail.Clean():
            return Tail(TailVerdict.CLEAN, term)
        case tail.Unsafe(reason=reason, remedy=remedy, summary=known):
            # nothing was pending on a replica: whatever is in its binlog, a rewind sees what can be done
            if known is not None and (remedy is tail.Remedy.REWIND or not was_primary):
                return Tail(TailVerdict.COMMITTED, term, "", known.transactions, reason)
            return Tail(TailVerdict.UNSAFE, term, reason=reason)
        case tail.Pending(summary=summary) if recovering:
            return Tail(
                TailVerdict.COMMITTED,
                term,
                transactions=summary.transactions,
                reason=f"its server was started in place and died again before it was up: {summary} "
                f"that {command.primary} lacks may have been committed, and must be rewound",
            )
        case tail.Pending(summary=summary) if summary.transactions and not was_primary:
            return Tail(
                TailVerdict.COMMITTED,
                term,
                transactions=summary.transactions,
                reason=f"it was no primary, so {summary} that it wrote itself are committed, and must be rewound",
            )
        case tail.Pending(summary=summary):
            saved = _save(found, pending, term)
            done("tail saved")
            if flavor is Flavor.MYSQL:
                # before the cut: a server that has lost the tail must never issue its GTIDs again
                forget_uuid(datadir)
            deadline.check("cutting the binlog")
            cut.cut(found)
            done("binlog cut")
            return Tail(TailVerdict.CUT, term, str(saved), summary.transactions)


def holds_back(waits: SemiSync) -> bool:
    """Whether commits wait for an acknowledgement, for ever, and before they are carried out."""
    return (
        waits.source
        and waits.acks >= 1
        and not waits.timeout_seconds
        and not waits.degraded
        and waits.wait_point is WaitPoint.AFTER_SYNC
    )


def asked(command: SetAcks | Promote) -> SemiSync:
    """How commits are to wait."""
    return SemiSync(
        source=command.acks > 0,
        acks=command.acks,
        timeout_seconds=command.timeout_seconds,
        wait_point=command.wait_point,
    )


class Marker:
    """A file whose being there is what is remembered, across the ends of agent and server.

    ``recovering`` is there from a start in place until the server is up: crash recovery commits the pending tail
    first and marks the binlog afterwards, so that, killed in between, the binlog alone looks as if nothing had been
    committed.

    ``primary`` is there while what this server issues, and nobody else has, is pending and may be cut: its clients were
    not told, and no session has seen it. That is so from a promotion on, or from a row that was acknowledged, while
    commits wait as :func:`holds_back` says. It goes *before* the server is told to wait in any lesser way (what is
    let through then is committed) or to follow another (what somebody writes on a replica is committed at once).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> None:
        """On disk when this returns. :raises Refused: when it cannot be written"""
        if self.marked():
            return
        try:
            replace_durably(self._path, "")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def marked(self) -> bool:
        return self._path.exists()


def _save(found: tail.Pending, pending: Path, term: int) -> Path:
    pending.mkdir(mode=0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        target = pending / f"{stamp}-term{term}{f'-{number}' if number else ''}.binlog"
        if not target.exists():
            save.save(found, target)
            return target
        number += 1


def forget_uuid(datadir: Path) -> None:
    """MySQL makes itself a new ``server_uuid``."""
    try:
        os.unlink(datadir / "auto.cnf")
    except FileNotFoundError:
        return
    sync_folder(datadir)


def _binlogs_beside(index: Path) -> bool:
    return any(index.parent.glob(f"{index.stem}.[0-9]*"))

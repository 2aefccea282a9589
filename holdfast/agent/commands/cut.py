"""The Cut command: saves what the new primary lacks, then removes it from a stopped server's binlog."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.disk.datadir import forget_uuid
from holdfast.agent.disk.term import make_folder
from holdfast.binlog.events.gtid_event import Gtid
from holdfast.binlog.files.run import Began, started_since
from holdfast.binlog.pending import cut, save, tail
from holdfast.core.commands import Cut
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import Tail, TailVerdict
from holdfast.errors import BadInput, Refused
from holdfast.server.base import Deadline


@dataclass(frozen=True, slots=True)
class StoppedServer:
    """:ivar index: of its binlog
    :ivar recovering: a start that took the binlog as it was may have got as far as committing its tail
    :ivar mark: of the run in which what the server issued was pending, up to the end of that run; None: in none
    :ivar committed: why the engine says that it may have committed what is to be cut, or ""
    """

    flavor: Flavor
    index: Path
    datadir: Path
    recovering: bool
    mark: Began | None
    committed: Callable[[tail.Pending], str]


def cut_pending(
    server: StoppedServer,
    pending: Path,
    term: int,
    command: Cut,
    deadline: Deadline,
    done: Callable[[str], None],
    note: Callable[[frozenset[str]], None],
) -> Tail:
    """Judge the binlog, and cut its pending tail if it has one. It can be repeated after an interruption at any point.

    :param pending: the folder that keeps what was cut
    :param note: called with the streams of what is to be cut, before the cut: see ``agent/promise/domains.py``
    :raises BadInput: ``present`` is no GTID set
    """
    index, was_primary = server.index, server.mark is not None
    try:
        present = parse(server.flavor, command.present)
    except ValueError as error:
        raise BadInput("present", str(error)) from None

    def has(gtid: Gtid) -> bool:
        deadline.check("reading the binlog")
        return present.has(gtid.stream, gtid.sequence)

    if not index.exists() and not _binlogs_beside(index):
        if was_primary:
            why = f"{index} and the binary logs beside it are gone: what was pending on it is not known"
            return Tail(TailVerdict.UNSAFE, term, reason=why)
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
            # nothing was pending on a replica: a rewind decides what to do about the content of its binlog
            if known is not None and (remedy is tail.Remedy.REWIND or not was_primary):
                return Tail(TailVerdict.COMMITTED, term, "", known.transactions, reason)
            return Tail(TailVerdict.UNSAFE, term, reason=reason)
        case tail.Pending(summary=summary) if server.recovering:
            return Tail(
                TailVerdict.COMMITTED,
                term,
                transactions=summary.transactions,
                reason=f"its server was started in place and died again before it was up: {summary} "
                f"that {command.primary} lacks may have been committed, and must be rewound",
            )
        case tail.Pending(summary=summary) if summary.transactions and (
            why := _not_pending(index, server.mark) or server.committed(found)
        ):
            done("found committed")
            return Tail(
                TailVerdict.COMMITTED,
                term,
                transactions=summary.transactions,
                reason=f"{why}, so {summary} that it wrote itself are committed, and must be rewound",
            )
        case tail.Pending(summary=summary):
            saved = _save(found, pending, term, deadline.clock.now())
            done("tail saved")
            if server.flavor is Flavor.MYSQL:
                # before the cut: a server that has lost the tail must never issue its GTIDs again
                forget_uuid(server.datadir)
            deadline.check("cutting the binlog")
            cut.cut(found)
            done("binlog cut")
            return Tail(TailVerdict.CUT, term, str(saved), summary.transactions)


def _not_pending(index: Path, mark: Began | None) -> str:
    """Why what the server itself wrote was not pending until its end, or ""."""
    if mark is None:
        return "it was no primary whose commits all waited for an acknowledgement"
    if later := started_since(index, mark):
        return f"{later}: another run than that of the primary wrote it"
    return ""


def _save(found: tail.Pending, pending: Path, term: int, now: float) -> Path:
    make_folder(pending)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    number = 0
    while True:
        target = pending / f"{stamp}-term{term}{f'-{number}' if number else ''}.binlog"
        if not target.exists():
            save.save(found, target)
            return target
        number += 1


def _binlogs_beside(index: Path) -> bool:
    return any(index.parent.glob(f"{index.stem}.[0-9]*"))

"""The primary came back in place: does it still hold all that was acknowledged?

A server that ended may come back with less than it had: the disk lied, the data directory was put back from a snapshot,
recovery cut the binlog. Then its voters have transactions that it lacks; if it were opened nevertheless, they would
have to rewind transactions that clients were told are committed.

So the primary is compared with its voters before it is opened for the first time after its end. The argument:

* What was acknowledged under a configuration was received by k of its |V| - 1 voters beside the primary. Any |V| - k of
  these voters meet each such set (fact 1 in ``quorum.py``): if none of |V| - k voters holds anything that the primary
  lacks, the primary lacks nothing that was acknowledged under that configuration. All configurations in force are
  checked in this way.
* A voter that is down holds what its files hold, received or applied; its agent reads the files (``Inventory``). Its
  server is not started before that: when it follows again, MariaDB drops what it had received and not applied.
* What a voter has issued itself is left out: that may be what it never had acknowledged, as primary, or what was
  written there by hand. This hides nothing. What the present primary had of that stream stands before its own first row
  in its binlog, and anything that removes the end of a binlog removes that row too; k voters have received that row,
  and it is the primary's own.
* If the primary is known to have regained all that it had when it ended (``agent/promise/regained.py``), nothing is
  left to ask: what was acknowledged before its reign it had when it was named, and what it acknowledged itself it had
  logged before. This is the case after a kill, where only the kernel's memory is needed; then a host that is gone for
  good does not keep the primary closed. Anything that a voter holds beyond that was never acknowledged.
* A voter whose server was started by hand meanwhile holds what it reports; what that start has lost is lost for the
  whole cluster.
* While the primary is compared it commits nothing, so the looks need not be of the same moment.

With k = 0 no other member had to hold anything: the members that can be seen are compared, and nothing is waited for.

A voter whose server cannot be asked leaves the question open. Only an operator can then open the primary
(``takeover.FailoverOrder`` to the primary itself), which the record keeps as ``RestartInPlace.lossy``.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.commands import Inventory
from holdfast.core.decision import Send
from holdfast.core.gtid import GtidSet, parse
from holdfast.core.record import Record
from holdfast.core.transition import RestartInPlace, Step
from holdfast.core.view import MemberState, ServerStatus, View


@dataclass(frozen=True, slots=True)
class ReturnDoubt:
    """Why a primary that came back in place stays closed.

    :ivar lacks: a voter holds what the primary lacks; else it is not known yet whether one does
    :ivar asks: the commands that would find out
    """

    reason: str
    lacks: bool
    asks: tuple[Send, ...] = ()


OPENING = RestartInPlace(Step.OPEN)


def not_started(state: MemberState) -> str:
    """Why the server of a primary, which is down, is not started in place now, or ""."""
    return state.unstartable or (state.start_failed if state.resting else "")


def returning(record: Record) -> RestartInPlace | None:
    """The return of a primary in place, from when its server may be started again; None: none is under way."""
    match record.transition:
        case RestartInPlace(step=Step.OPEN) as restart:
            return restart
        case _:
            return None


def doubt(record: Record, view: View, primary: MemberState) -> ReturnDoubt | None:
    """Why the primary may not be opened; None if it may."""
    restart = returning(record)
    if restart is None:
        return None
    if primary.semi_sync.source or primary.writable:
        return None  # it was accepted, and commits by now
    if primary.regained:
        return None
    mine = primary.applied_set()
    known: set[str] = set()
    unknown: list[str] = []
    asks: list[Send] = []
    names = {name for each in record.configurations for name in each.names()} - {record.primary}
    for name in sorted(names):
        state = view.state(name)
        holds = held(state)
        if holds is None:
            unknown.append(f"{name} ({_why(state)})")
            if state is not None and state.server is ServerStatus.DOWN:
                asks.append(Send(name, Inventory()))
        elif not mine.contains(holds):
            return ReturnDoubt(
                f"{primary.name} came back without transactions that {name} has received ({holds.subtract(mine)}): "
                "it stays closed, and no replica is attached to it",
                lacks=True,
            )
        else:
            known.add(name)
    if restart.lossy or _suffice(record, known):
        return None
    return ReturnDoubt(
        f"{primary.name} stays closed until it is known that it has all that its voters have received: waiting for "
        f"{', '.join(unknown)}",
        lacks=False,
        asks=tuple(asks),
    )


def may_be_copied(record: Record, view: View, primary: MemberState) -> bool:
    """Whether the primary's data is the data that counts: it is open, or being opened; or it came back in place, has
    all that its voters have, and takes no writes."""
    if primary.writable or primary.semi_sync.source:
        return True
    return returning(record) is not None and doubt(record, view, primary) is None


def awaits(record: Record, view: View) -> RestartInPlace | None:
    """The return of a primary that is up, and stays closed only because something is not known about its voters."""
    primary = view.state(record.primary)
    found = doubt(record, view, primary) if primary and primary.up else None
    return returning(record) if found is not None and not found.lacks else None


def held(state: MemberState | None) -> GtidSet | None:
    """Everything that a member is known to hold; None if that is not known."""
    if state is None:
        return None
    if state.up:
        return state.received_set().not_of(state.origin)
    if state.server is ServerStatus.DOWN and state.kept is not None:
        return parse(state.flavor, state.kept)
    return None


def _suffice(record: Record, known: set[str]) -> bool:
    """Whether the primary was compared with enough voters: a recovery quorum of each configuration in force."""
    return all(
        len({name for name, _ in each.without(record.primary)} & known)
        >= len(each.voters) - each.acks
        for each in record.configurations
        if each.acks
    )


def _why(state: MemberState | None) -> str:
    if state is None:
        return "its agent does not answer"
    match state.server:
        case ServerStatus.DOWN:
            return "its files are being read"
        case ServerStatus.STARTING:
            return "its server is starting"
        case _:
            return "its server was killed, and hangs in the kernel"

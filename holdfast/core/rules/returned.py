"""The primary came back in place: does it still hold all that was acknowledged?

Nobody promises that a server which ended comes back with what it had: a disk that lied, a data directory put back from
a snapshot, a recovery that cuts the binlog by itself. Where it has less, its voters have what it lacks; opened all the
same, it would make them rewind transactions that clients were told are committed.

So it is compared with its voters before it is opened for the first time after its end. The argument:

* What was acknowledged under a configuration was received by k of its |V| - 1 voters beside the primary. Any |V| - k of
  these voters meet each such set (fact 1 in ``quorum.py``): if none of |V| - k voters holds anything that the primary
  lacks, it lacks nothing that was acknowledged under that configuration. All configurations in force are asked for.
* A voter that is down holds what its files hold, received or applied; its agent reads them (``Inventory``), and nobody
  starts it before: when it follows again, MariaDB drops what it had received and not applied.
* What a voter has issued itself is left out: that may be what it never had acknowledged, as primary, or what a hand
  wrote there. Nothing is missed for it. What the present primary had of that stream stands before its own first row in
  its binlog, and whatever takes away the end of a binlog takes that row too; k voters have received it, and it is the
  primary's own.
* Where the primary is known to have regained all that it had when it ended (``agent/promise/regained.py``), nothing is
  left to ask: what was acknowledged before its reign it had when it was named, and what it acknowledged itself it had
  logged before. So it is after a kill, where only the kernel's memory is needed; a host that is gone for good then
  keeps nobody closed. Whatever a voter holds beyond that was never acknowledged.
* A voter that somebody else has started meanwhile holds what it says; what that start has lost is lost for everybody.
* While the primary is compared it commits nothing, so the looks need not be of one moment.

Where k = 0 nobody else was asked to hold anything: who can be seen is compared, and nobody is waited for.

A voter whose server cannot be asked leaves the question open. To open the primary nevertheless is up to an operator
(``takeover.FailOver`` to the primary itself), which the record keeps as ``Transition.lossy``.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.commands import Inventory
from holdfast.core.decision import Send
from holdfast.core.gtid import GtidSet, parse
from holdfast.core.record import Record, Step, Transition, TransitionKind
from holdfast.core.view import MemberState, ServerStatus, View


@dataclass(frozen=True, slots=True)
class ReturnDoubt:
    """Why a primary that came back in place stays closed.

    :ivar lacks: somebody holds what it lacks; else it is not known yet whether anybody does
    :ivar asks: what would tell
    """

    reason: str
    lacks: bool
    asks: tuple[Send, ...] = ()


OPENING = Transition(TransitionKind.RESTART, Step.OPEN)


def not_started(state: MemberState) -> str:
    """Why a primary whose server is down is not started in place now, or ""."""
    return state.unstartable or (state.start_failed if state.resting else "")


def is_returning(record: Record) -> bool:
    """Whether the primary is coming back in place."""
    transition = record.transition
    return transition is not None and (transition.kind, transition.step) == (
        TransitionKind.RESTART,
        Step.OPEN,
    )


def doubt(record: Record, view: View, primary: MemberState) -> ReturnDoubt | None:
    """None when it may be opened."""
    transition = record.transition
    if transition is None or not is_returning(record):
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
    if transition.lossy or _suffice(record, known):
        return None
    return ReturnDoubt(
        f"{primary.name} stays closed until it is known that it has all that its voters have received: waiting for "
        f"{', '.join(unknown)}",
        lacks=False,
        asks=tuple(asks),
    )


def may_be_copied(record: Record, view: View, primary: MemberState) -> bool:
    """Whether what the primary has is what counts: it is open, or being opened; or it came back in place and has all
    that its voters have, and takes no writes."""
    if primary.writable or primary.semi_sync.source:
        return True
    return is_returning(record) and doubt(record, view, primary) is None


def awaits(record: Record, view: View) -> bool:
    """Whether the primary is up, and closed for nothing but what is not known of its voters."""
    primary = view.state(record.primary)
    found = doubt(record, view, primary) if primary and primary.up else None
    return found is not None and not found.lacks


def held(state: MemberState | None) -> GtidSet | None:
    """All that a member is known to hold; None when that is not known."""
    if state is None:
        return None
    if state.up:
        return state.received_set().not_of(state.origin)
    if state.server is ServerStatus.DOWN and state.kept is not None:
        return parse(state.flavor, state.kept)
    return None


def _suffice(record: Record, known: set[str]) -> bool:
    """Whether these voters were enough to be compared with: a recovery quorum of each configuration in force."""
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

"""When a commit of a primary may have completed without an acknowledgement, and what that means for its binlog.

What a primary has issued and no other member has is *pending*. It may be cut when the primary returns, but only if no
commit completed without k voters: not even for a moment, and no matter what caused it. Commits are let through by
(tested on both servers, ``tests/integration/test_server_releases.py``):

===============================================  ==========================  ============================
                                                 MariaDB counts              MySQL counts
===============================================  ==========================  ============================
KILL, KILL QUERY of a session that waits         let_through                 (it keeps waiting)
``wait_no_slave`` / ``wait_no_replica`` off      let_through                 let_through, switched_off
semi-sync off and on again                       switched_off                switched_off
a time-out that strikes                          let_through, switched_off   let_through, switched_off
RESET MASTER / RESET BINARY LOGS AND GTIDS       all counters go to 0        (it waits for the commits)
FLUSH STATUS: nothing, but the counts are gone   all counters go to 0        some go to 0
SHUTDOWN, SIGTERM                                (the server answers no more; its socket's file goes first)
UNINSTALL PLUGIN                                 (there is none)             (nothing can be asked any more)
===============================================  ==========================  ============================

So the counters show every one of these, also one that was over before the agent looked; how commits wait *now* shows
the rest. Counters that went down show that something is no longer known, which is treated as if it had happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.commands import Promote, SetAcks
from holdfast.core.observed.tally import Tally
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync


@dataclass(frozen=True, slots=True)
class Release:
    """Commits completed, or may have completed, without k voters.

    :ivar reason: what let them through, in words that follow "because"
    :ivar count: how many of them are known, at least
    """

    reason: str
    count: int = 0


def holds_back(waits: SemiSync) -> bool:
    """Whether commits wait for an acknowledgement, without a time limit, and before they are carried out."""
    return not lesser(waits, waits.acks)


def asked(command: SetAcks | Promote) -> SemiSync:
    """How commits must wait according to the command."""
    return SemiSync(
        source=command.acks > 0,
        acks=command.acks,
        timeout_seconds=command.timeout_seconds,
        wait_point=command.wait_point,
    )


def lesser(waits: SemiSync, acks: int) -> str:
    """In which way a primary waits for less than it should (without end, for ``acks`` voters, before it commits); "" if
    it does not."""
    if not waits.source:
        return "semi-sync is off"
    if waits.degraded:
        return "the waiting was switched off for all commits"
    if waits.timeout_seconds:
        return f"commits wait for {waits.timeout_seconds:g} s only"
    if not waits.waits_alone:
        return "commits do not wait while no replica is connected"
    if waits.wait_point is not WaitPoint.AFTER_SYNC:
        return "commits are carried out before they wait"
    if waits.acks < max(acks, 1):
        return f"commits wait for {waits.acks} instead of {max(acks, 1)} acknowledgements"
    return ""


def let_through(acks: int, before: Tally, now: SemiSync) -> Release | None:
    """Whether commits completed without ``acks`` voters since the server's counters were as in ``before``.

    :param before: read while commits waited as :func:`holds_back` says
    """
    if why := lesser(now, acks):
        return Release(why, counted(before, now))
    if recounted(before, now.tally):
        return Release(
            "the server's counters were set to 0: what it let through before is not known"
        )
    if now.tally.let_through > before.let_through:
        return Release("the server counts commits without an acknowledgement", counted(before, now))
    if now.tally.switched_off > before.switched_off:
        return Release("the waiting was switched off, and on again")
    return None


def counted(before: Tally, now: SemiSync) -> int:
    """How many commits the server has let through since ``before``, as far as it counts them."""
    if not now.source or recounted(before, now.tally):
        return 0
    return now.tally.let_through - before.let_through


def recounted(before: Tally, now: Tally) -> bool:
    """Whether the server's counters were reset."""
    return (
        now.acknowledged < before.acknowledged
        or now.let_through < before.let_through
        or now.switched_off < before.switched_off
    )


def acknowledged(begun: SemiSync, ended: SemiSync) -> bool:
    """Whether a row that was committed between two looks was acknowledged, and not let through.

    Nothing at all was let through while the row was under way, so the row was not either. If other commits were let
    through at the same time, the row proves nothing: another row is committed then.
    """
    return (
        begun.source
        and ended.source
        and not begun.degraded
        and not ended.degraded
        and not recounted(begun.tally, ended.tally)
        and (ended.tally.let_through, ended.tally.switched_off)
        == (begun.tally.let_through, begun.tally.switched_off)
        and ended.acks >= begun.acks
    )


def describe(release: Release, name: str = "") -> str:
    """The release in words for an operator. :param name: of the member; "": the member reports about itself"""
    where = f" on {name}" if name else ""
    if not release.count:
        return f"commits{where} may have completed without a voter: {release.reason}"
    what = "transaction was" if release.count == 1 else "transactions were"
    return f"{release.count} {what} acknowledged without a voter{where}: {release.reason}"

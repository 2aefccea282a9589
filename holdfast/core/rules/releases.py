"""When a commit of a primary may have gone on without an acknowledgement, and what that means for its binlog.

What a primary has issued and nobody else has is *pending*, and may be cut when it returns, only where no commit went on
without k voters: not even for a moment, and whoever made it so. Commits are let through by (tested on both servers,
``tests/integration/test_server_releases.py``):

===============================================  ==========================  ============================
                                                 MariaDB counts              MySQL counts
===============================================  ==========================  ============================
KILL, KILL QUERY of a session that waits         let_through                 (it goes on waiting)
``wait_no_slave`` / ``wait_no_replica`` off      let_through                 let_through, switched_off
semi-sync off and on again                       switched_off                switched_off
a time-out that strikes                          let_through, switched_off   let_through, switched_off
RESET MASTER / RESET BINARY LOGS AND GTIDS       all counters go to 0        (it waits for the commits)
FLUSH STATUS: nothing, but the counts are gone   all counters go to 0        some go to 0
SHUTDOWN, SIGTERM                                (the server answers no more; its socket's file goes first)
UNINSTALL PLUGIN                                 (there is none)             (nothing can be asked any more)
===============================================  ==========================  ============================

So the counters tell of every way, also of one that was over before anybody looked; how commits wait *now* tells of the
rest. Counters that went down tell that something is no longer known, which counts as if it had happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.commands import Promote, SetAcks
from holdfast.core.observed.tally import Tally
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync


@dataclass(frozen=True, slots=True)
class Release:
    """Commits went on, or may have gone on, without k voters.

    :ivar reason: what let them through, in words that follow "because"
    :ivar count: at least so many of them are known
    """

    reason: str
    count: int = 0


def holds_back(waits: SemiSync) -> bool:
    """Whether commits wait for an acknowledgement, for ever, and before they are carried out."""
    return not lesser(waits, waits.acks)


def asked(command: SetAcks | Promote) -> SemiSync:
    """How commits are to wait."""
    return SemiSync(
        source=command.acks > 0,
        acks=command.acks,
        timeout_seconds=command.timeout_seconds,
        wait_point=command.wait_point,
    )


def lesser(waits: SemiSync, acks: int) -> str:
    """How a primary waits less than without end, for ``acks`` voters, before it commits; "" when it does not."""
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
    """Whether commits went on without ``acks`` voters since the server's counters were as in ``before``.

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
    """Whether the server has begun to count anew."""
    return (
        now.acknowledged < before.acknowledged
        or now.let_through < before.let_through
        or now.switched_off < before.switched_off
    )


def acknowledged(begun: SemiSync, ended: SemiSync) -> bool:
    """Whether a row that was committed between two looks was acknowledged, and not let through.

    While it was under way nothing was let through at all, so it was not either. What others are let through with at the
    same time makes it void: then another row is committed.
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
    """For people. :param name: of the member; "": it speaks of itself"""
    where = f" on {name}" if name else ""
    if not release.count:
        return f"commits{where} may have completed without a voter: {release.reason}"
    what = "transaction was" if release.count == 1 else "transactions were"
    return f"{release.count} {what} acknowledged without a voter{where}: {release.reason}"

"""Whether some process still ends the server of a primary when its lease is over, although its agent cannot be asked.

An agent that hangs or has ended does not end its server. While server and voters see each other this costs nothing. But
once the host is cut off as well, the server would answer reads from old data beside the next primary. So what the
voters report while they still hear the server is kept until its agent answers again:

* *Nothing enforces the lease.* A voter has heard the server although its lease was certainly over: no manager had
  renewed it, and too few voters can have vouched. A process that enforced the lease would have killed the server
  before. This is treated like an agent that is known to have ended: an alarm, and no member is promoted when the voters
  later hear nothing.
* *Something does.* A voter was asked to vouch for the server, and only a process that enforces a lease asks. After an
  agent has ended, or while it hangs, that is its keeper process (``agent/lease/keeper_process.py``). The keeper process
  releases a server only when the hosts of all voters say that no agent runs there; so a question that a voter's agent
  got in its present run was asked after that.

A server that was frozen with its host is heard for a moment before it is killed, and what a dead host had sent may be
heard late. So the server must have been heard for as long as ``detection``, without a silence of that length. The error
that remains is a needless alarm; it ends when the voters find that the server is gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster
from holdfast.core.decision import Save
from holdfast.core.record import Record
from holdfast.core.rules.deposed import surely_revoked
from holdfast.core.timing import relied_on
from holdfast.core.view import Receiver, Seen, Unseen, View


@dataclass(frozen=True, slots=True)
class Evidence:
    """Moments by the manager's clock, in seconds.

    :ivar primary: the member whose lease the evidence is about
    :ivar since: since when its agent does not answer: another silence needs new evidence
    :ivar nobody: the last moment at which nothing enforced the lease
    :ivar somebody: the last moment at which a voter was asked to vouch, according to the voters that are seen now
    :ivar asked: the same, according to all voters that were seen in this silence
    :ivar outlived: since when the server has been heard although its lease was over; inf: it is not heard
    :ivar gone: whether the end of the agent is noted
    """

    primary: str
    since: float
    nobody: float = -math.inf
    somebody: float = -math.inf
    asked: float = -math.inf
    outlived: float = math.inf
    gone: bool = False

    def enforced(self, settle: float) -> bool | None:
        """Whether the lease is enforced; None: nothing is known.

        :param settle: how much time may lie between what a member reports and the moment at which it is read
        """
        if self.somebody > self.nobody + settle:
            return True
        return None if self.nobody == -math.inf else False


def weighed(
    before: Evidence | None, cluster: Cluster, record: Record, view: View
) -> Evidence | None:
    """The evidence after a look at ``view``; None: the primary's agent answers. Must be called at every look."""
    sighting = view.members.get(record.primary)
    if not isinstance(sighting, Unseen):
        return None
    known = before
    if known is None or (known.primary, known.since) != (record.primary, sighting.since):
        known = Evidence(record.primary, sighting.since)
    asked = _asked(cluster, record, view)
    asked = asked if asked > sighting.since else -math.inf
    known = replace(known, somebody=asked, asked=max(known.asked, asked))
    if sighting.agent_gone and not known.gone:
        known = replace(known, gone=True, nobody=view.now)
    if not (sighting.last and sighting.last.ended):
        patience = cluster.settings.timing.detection
        heard = _outlived(cluster, record, view, known)
        known = replace(known, outlived=min(known.outlived, heard) if heard else math.inf)
        if heard and heard >= known.outlived + patience:
            known = replace(known, nobody=max(known.nobody, heard))
    return known


def noted(record: Record, view: View) -> Save | None:
    """Keep in the record that nothing ends the primary's server, until its agent answers again or another member is
    primary: the next manager may find the server already cut off."""
    name = record.primary
    run = record.target.incarnation(name) or ""
    if record.unkept == run and run and view.state(name) is not None:
        return Save(replace(record, unkept=""), f"the agent of {name} answers again")
    if view.enforced is False and record.unkept != run:
        return Save(
            replace(record, unkept=run), f"nothing ends the server of {name} when its lease is over"
        )
    return None


def unkept(record: Record, view: View) -> bool:
    """Whether nothing ends the primary's server, as far as this manager or one before it knows."""
    run = record.target.incarnation(record.primary)
    return view.enforced is False or (record.unkept == run and view.enforced is None)


def _outlived(cluster: Cluster, record: Record, view: View, known: Evidence) -> float | None:
    """The last moment at which a voter heard a server whose lease was certainly over; None: no voter did lately."""
    over = view.leases.get(record.primary, math.inf)
    over = max(over, known.asked + relied_on(record.lease))
    patience = cluster.settings.timing.detection
    heard = max(
        (
            seen.at - seen.state.replication.unheard
            for seen in _followers(cluster, record, view)
            if seen.state.replication.receiver is Receiver.ON
        ),
        default=-math.inf,
    )
    if heard < max(over, view.now - patience):
        return None
    unasked = {
        seen.state.name for seen in _all_seen(cluster, record, view) if _word_ended(seen) < heard
    }
    return heard if surely_revoked(cluster, record, view, unasked) else None


def _word_ended(seen: Seen) -> float:
    """When the voter's last confirmation, given or assumed, became invalid."""
    return seen.at + (seen.state.vouched or -seen.state.unvouched)


def _asked(cluster: Cluster, record: Record, view: View) -> float:
    address = cluster.member(record.primary).address
    return max(
        (
            seen.at - asked.seconds
            for seen in _all_seen(cluster, record, view)
            if (asked := seen.state.asked) and asked.address == address
        ),
        default=-math.inf,
    )


def _followers(cluster: Cluster, record: Record, view: View) -> list[Seen]:
    address = cluster.member(record.primary).address
    return [
        each
        for each in _all_seen(cluster, record, view)
        if each.state.observed and each.state.replication.source == address
    ]


def _all_seen(cluster: Cluster, record: Record, view: View) -> list[Seen]:
    found = (view.members.get(each.name) for each in cluster.others(record.primary))
    return [each for each in found if isinstance(each, Seen)]

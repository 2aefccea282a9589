"""What an operator may order for one member: what stands against it now, and its first step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.change.restart import CLOSING
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Clone, Restart
from holdfast.core.decision import Save, Send
from holdfast.core.members.copying import cloned_now, ends
from holdfast.core.members.rejoin import best_donor
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached, with_everything_of
from holdfast.core.rules.seats import Candidate, chosen, may_be_alone
from holdfast.core.view import MemberState, Receiver, View
from holdfast.core.wording import agree, is_under_way


@dataclass(frozen=True, slots=True)
class CloneMember:
    """Replace the member's data by a copy of another member's.

    :ivar donor: "" for the best one
    :ivar discard: what no other member has need not be saved first
    """

    member: str
    donor: str = ""
    discard: bool = False

    @property
    def text(self) -> str:
        return f"{self.member} will be cloned" + (f" from {self.donor}" if self.donor else "")

    @property
    def done(self) -> str:
        return f"{self.member} is being cloned"


@dataclass(frozen=True, slots=True)
class RestartMember:
    """Shut down the member's server in order, and start it again.

    :ivar waiting: writes may wait meanwhile, if they must
    """

    member: str
    waiting: bool = False

    @property
    def text(self) -> str:
        return f"{self.member} will be restarted"

    @property
    def done(self) -> str:
        return f"{self.member} was restarted"


Order = CloneMember | RestartMember


def objections(
    cluster: Cluster, record: Record | None, view: View, order: Order
) -> tuple[str, ...]:
    """Everything that stands against carrying out the order now; () if nothing does."""
    if record is None:
        return (f"{cluster.name} has no primary yet",)
    found = []
    if record.transition:
        found.append(f"{is_under_way(record.transition.kind)}: ask again when it is over")
    primary = view.state(record.primary)
    if primary is None:
        found.append(f"the agent of {record.primary}, the primary, does not answer")
    elif not primary.writable:
        found.append(f"{record.primary}, the primary, does not take writes")
    state = view.state(order.member)
    if state is None:
        return (*found, f"the agent of {order.member} does not answer")
    if state.occupied:
        found.append(f"{order.member} is busy: {state.occupied.what}")
    if isinstance(order, CloneMember):
        found += _against_clone(cluster, record, view, order)
    else:
        found += _against_restart(cluster, record, view, order, state)
    return tuple(found)


def first_step(cluster: Cluster, record: Record, view: View, order: Order) -> Send | Save:
    """The first step of the order. Expects that there are no objections."""
    if isinstance(order, CloneMember):
        return _clone(cluster, record, view, order)
    if order.member != record.primary:
        return Send(order.member, Restart())
    # recorded first: another manager then knows that no member is to take over
    why = f"{order.member}, the primary, will be restarted"
    return Save(replace(record, transition=CLOSING), why)


def goes_on_without(cluster: Cluster, record: Record, view: View, name: str) -> bool:
    """Whether commits are acknowledged while ``name`` is away, apart from a moment in which the voters change."""
    primary = view.state(record.primary)
    if may_be_alone(cluster.settings):
        return True
    if record.target.incarnation(name) is None:
        return True
    others = [
        Candidate(voter, incarnation, True)
        for voter, incarnation in sorted(record.target.without(record.primary))
        if voter != name
        and (state := view.state(voter))
        and state.incarnation == incarnation
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    ]
    return primary is not None and bool(chosen(cluster, primary, others))


def _against_clone(cluster: Cluster, record: Record, view: View, order: CloneMember) -> list[str]:
    name, donor = order.member, order.donor
    if name == record.primary:
        return [f"{name} is the primary and cannot be cloned: its data is the cluster's data"]
    found = []
    if not goes_on_without(cluster, record, view, name):
        found.append(
            f"{name} is the last voter beside {record.primary}, which cannot commit without it: add "
            "another member first, or set when_alone serve"
        )
    primary = view.state(record.primary)
    giver = donor or best_donor(cluster, record, view, name)
    if other := cloned_now(view, name):
        found.append(f"one member is cloned at a time, and {other} is being cloned")
    elif primary and not ends(cluster, record, view, primary, giver, name):
        found.append(f"no copy can be made of {giver} while its commits wait for {name}")
    if donor == name:
        found.append(f"{name} cannot be its own donor")
    elif donor and (why := _unfit_donor(cluster, record, view, donor)):
        found.append(f"{donor} cannot be the donor: {why}")
    return found


def _unfit_donor(cluster: Cluster, record: Record, view: View, donor: str) -> str:
    if donor not in {member.name for member in cluster.members}:
        return "there is no such member"
    state = view.state(donor)
    if state is None:
        return "its agent does not answer"
    if not state.up:
        return "its server is not up"
    if state.unfit or state.suspects:
        return (
            state.unfit or f"{agree(state.suspects, 'is', 'are')} being compared with the primary's"
        )
    if state.differs:
        return f"it differs from the primary in {', '.join(map(str, state.differs))}"
    if donor != record.primary and not attached(cluster, record, state):
        return f"it does not follow {record.primary}"
    return f"it is busy: {state.progress.what}" if state.progress else ""


def _against_restart(
    cluster: Cluster, record: Record, view: View, order: RestartMember, state: MemberState
) -> list[str]:
    name = order.member
    if not state.up:
        return [f"the server of {name} is {state.server.value}"]
    if name == record.primary:
        found = ["the voters are changing: ask again when they have"] if record.joint else []
        if not order.waiting:
            found.append(
                f"{name} is the primary, and no writes are taken while it restarts: add --yes"
            )
        return found
    if not order.waiting and not goes_on_without(cluster, record, view, name):
        return [f"{record.primary} acknowledges no writes while {name} restarts: add --yes"]
    return []


def _clone(cluster: Cluster, record: Record, view: View, order: CloneMember) -> Send:
    donor = cluster.member(order.donor or best_donor(cluster, record, view, order.member))
    primary = view.state(record.primary)
    present = str(with_everything_of(primary)) if primary else ""
    return Send(
        order.member,
        Clone(donor.name, donor.host, donor.port, donor.agent, present, order.discard),
    )

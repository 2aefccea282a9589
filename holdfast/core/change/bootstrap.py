"""How a cluster begins: all members fresh, with the same data (usually none), and no record yet.

Empty data directories are initialised first (``core/observed/data_state.py``). Accounts that are missing on the first
primary are created before it waits for the members that log in by them (``core/members/accounts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Initialise, Start
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.observed.data_state import Data
from holdfast.core.quorum import Configuration, acks_for
from holdfast.core.record import Record
from holdfast.core.rules.seats import Candidate, chosen
from holdfast.core.transition import Bootstrap
from holdfast.core.view import MemberState, ServerStatus, View
from holdfast.core.wording import joined

TERM = 0
"""The term of commands before there is a record: an agent that has promised any term refuses them."""


def bootstrap(cluster: Cluster, view: View) -> Decision:
    """Start every member, then name the first primary.

    Only members whose agents have promised nothing are touched: if one has, a record existed, and only that record says
    what the servers hold that was never acknowledged.
    """
    states: list[MemberState] = []
    for member in cluster.members:
        state = view.state(member.name)
        if state is None:
            return Decision(f"no record yet: waiting for the agent of {member.name}")
        if state.term or state.record.revision:
            return Decision(
                f"the store has no record of {cluster.name}, but {member.name} was in a cluster before (its agent "
                f"promised term {state.term}); restore the manager's store, or rebuild the record from what the "
                f"agents remember: holdfast store repair {cluster.name}"
            )
        states.append(state)
    for state in states:
        if state.up and (state.writable or state.replication.source):
            does = f"follows {state.replication.source}" if not state.writable else "takes writes"
            return Decision(
                f"no record yet, and {state.name} {does}: run holdfast adopt to take over a running cluster; in "
                "a new one, no member may take writes or replicate"
            )
    for state in states:
        if state.server is ServerStatus.STARTING:  # it may turn out to serve clients
            hidden = state.unobserved
            why = f"its agent cannot query it: {hidden}: see holdfast check" if hidden else ""
            return Decision(
                f"no record yet: the server of {state.name} {why and 'runs, and '}{why or 'is starting'}"
            )
    if (made := _initialised(cluster, states)) is not None:
        return made
    for state in states:
        if state.unstartable:
            return Decision(f"no record yet: {state.name}: {state.unstartable}")
    down = [state.name for state in states if state.server is ServerStatus.DOWN]
    if down:
        return Decision(
            f"no record yet: starting {', '.join(down)}",
            tuple(Send(name, Start()) for name in down),
        )
    first = states[0]
    for state in states:
        if state.flavor is not first.flavor:
            return Decision(f"{state.name} runs {state.flavor}, {first.name} {first.flavor}")
        if state.applied_set() != first.applied_set():
            return Decision(
                f"no record yet, and {state.name} does not have the same transactions as {first.name} "
                f"({state.applied or 'none'}; {first.applied or 'none'}): load the same data into all of them"
            )
    return _named(cluster, states)


def _initialised(cluster: Cluster, states: Sequence[MemberState]) -> Decision | None:
    """How the empty data directories are initialised, or why not; None if no data directory is empty.

    :param states: of all configured members, whose agents have obeyed no manager; see ``core/observed/data_state.py``
        for all conditions
    """
    empty = [state for state in states if state.data is Data.EMPTY]
    if not empty:
        return None
    names = ", ".join(state.name for state in empty)
    used = [state.name for state in states if state.data is Data.USED]
    if used:
        have, them = ("has", "it") if len(used) == 1 else ("have", "them")
        return Decision(
            f"no record yet, and nothing is initialised: the data directory of {names} is empty, and {', '.join(used)} "
            f"{have} data, which may be the cluster's. To begin with that data: leave only one that has it in the "
            "managers' files, start its server, holdfast adopt, then holdfast member add for each other (it is "
            f"cloned). To start empty: empty the data directory of {them}"
        )
    if running := [state.name for state in states if not state.ended]:
        return Decision(
            f"no record yet: the data directory of {names} is empty, and the server of {', '.join(running)} runs: "
            "stop it"
        )
    if len({state.flavor for state in states}) > 1:
        said = ", ".join(f"{state.name} runs {state.flavor}" for state in states)
        return Decision(f"no record yet: {said}: set one server.flavor in all agents' files")
    agents = tuple((member.name, member.agent) for member in cluster.members)
    troubles = [f"{state.name}: " + state.why for state in empty if state.reason]
    begun = f"no record yet: initialising the empty data directory of {names}"
    why = joined("; ", [begun, *troubles])
    return Decision(why, tuple(Send(state.name, Initialise(agents)) for state in empty))


def _named(cluster: Cluster, states: list[MemberState]) -> Decision:
    first = max(states, key=lambda state: cluster.setting(state.name).priority)
    others = [Candidate(s.name, s.incarnation, False) for s in states if s is not first]
    can_vote = [each for each in others if cluster.setting(each.name).voter]
    own = (first.name, first.incarnation)
    everyone = chosen(cluster, first, can_vote) | {own}
    alone = Configuration(frozenset({own}), 0)
    acks = acks_for(len(everyone), cluster.settings, first.flavor)
    together = Configuration(everyone, acks)
    record = Record(
        term=1,
        primary=first.name,
        elected=1,
        configurations=tuple(dict.fromkeys((alone, together))),
        serial=1,
        transition=Bootstrap(),
        mode=cluster.settings.mode,
        lease=cluster.settings.timing.lease,
    )
    why = f"{cluster.name} begins with {first.name} as primary"
    return Decision(why, (Save(record, why),))

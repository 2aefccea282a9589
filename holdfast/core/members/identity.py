"""Which agent belongs to which member: each agent has an identity, made once, and the record says whose it is.

A member's name and address are written by hand: two hosts may have the same, an address may come to lead to another
host, and a virtual machine that is copied has everything twice.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.record import Record
from holdfast.core.view import MemberState, Seen, Unseen, View


def identity_of(record: Record | None, name: str) -> str:
    """The identity of the agent that is known as that member; "" while none is."""
    return dict(record.identities).get(name, "") if record else ""


def impostor(record: Record | None, name: str, said: MemberState, view: View) -> str:
    """Why the agent that answers for ``name`` is not accepted as that member, or "".

    An agent that has promised nothing and obeyed nothing has a new state_dir: its host was installed anew, and the
    agent takes the place of the previous one. An agent with a past of its own takes no member's place unless an
    operator says so.
    """
    if not said.identity:
        return ""  # an agent of an earlier version
    pinned = dict(record.identities) if record else {}
    owner = next((who for who, known in pinned.items() if known == said.identity), name)
    if owner != name:
        return _copied(name, owner)
    for other, sighting in sorted(view.members.items()):
        if other == name or not isinstance(sighting, Seen):
            continue
        if sighting.state.identity == said.identity and pinned.get(name) != said.identity:
            return _copied(name, other)
    known = pinned.get(name, "")
    if known in ("", said.identity) or not said.term:
        return ""
    return (
        f"another agent answers for {name} than before (identity {said.identity[:8]}, not {known[:8]}), and it has "
        f"obeyed term {said.term} of some manager: two hosts share its address, or it was restored from elsewhere; to "
        f"accept it as {name} from now on: holdfast member confirm {name}"
    )


def _copied(name: str, other: str) -> str:
    return (
        f"the agents of {name} and {other} have the same identity: one of the hosts is a copy of the other; end the "
        "copy's agent and server, remove its state_dir, and clone its data"
    )


def pinned(record: Record, view: View) -> Record | None:
    """The record with the identities that were seen; None if it has them already, or if that can wait.

    A member that is seen for the first time waits until nothing is under way. A member that was installed anew does not
    wait, because commands name the agent that they are for.

    :param view: as observed, not the result of :func:`unmasked`
    """
    seen = {
        name: sighting.state.identity
        for name, sighting in view.members.items()
        if isinstance(sighting, Seen) and sighting.state.identity
    }
    known = dict(record.identities)
    gone = [name for name in known if name not in view.members]
    news = {name: each for name, each in seen.items() if known.get(name) != each}
    urgent = any(name in known for name in news)
    if not urgent and (record.transition or record.joint or not (news or gone)):
        return None
    kept = {name: each for name, each in (known | news).items() if name not in gone}
    return replace(record, identities=frozenset(kept.items()))


def unmasked(record: Record | None, view: View) -> View:
    """The view without what impostors report: they count as members whose agents do not answer."""
    found = dict(view.members)
    for name, sighting in view.members.items():
        if isinstance(sighting, Seen) and (why := impostor(record, name, sighting.state, view)):
            found[name] = Unseen(why, 0.0)  # it was never there
    return view if found == view.members else replace(view, members=found)

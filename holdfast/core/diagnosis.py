"""What is wrong with the primary, as far as it can be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from holdfast.core.record import Record
from holdfast.core.view import ServerStatus, Unseen, View


class Primary(Enum):
    """The recorded primary's condition.

    WELL: runs in the recorded incarnation and takes writes. CLOSED: runs, and does not take writes, or does
    not wait for the acknowledgements it should. DEAD: its agent says that its process is gone. RESTARTED: it
    runs, or is starting, in another incarnation than the recorded one. UNSEEN: its agent does not
    answer, which says nothing about the server.
    """

    WELL = auto()
    CLOSED = auto()
    DEAD = auto()
    RESTARTED = auto()
    UNSEEN = auto()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    primary: Primary
    reason: str


def diagnose(record: Record, view: View) -> Diagnosis:
    name = record.primary
    sighting = view.members.get(name)
    if sighting is None or isinstance(sighting, Unseen):
        why = sighting.reason if sighting else "not asked yet"
        return Diagnosis(
            Primary.UNSEEN,
            f"the agent of {name}, the primary, does not answer ({why}); "
            "whether its server lives is not known, so nobody is promoted",
        )
    state = sighting.state
    if state.server is ServerStatus.DOWN:
        return Diagnosis(Primary.DEAD, f"the server of {name}, the primary, is gone")
    if state.incarnation != record.target.incarnation(name):
        return Diagnosis(Primary.RESTARTED, f"the server of {name}, the primary, was restarted")
    if not state.writable:
        return Diagnosis(Primary.CLOSED, f"{name}, the primary, is read-only")
    if state.semi_sync.acks < record.acks or (record.acks and not state.semi_sync.source):
        return Diagnosis(
            Primary.CLOSED, f"{name}, the primary, does not wait for {record.acks} acknowledgements"
        )
    if state.reason:
        return Diagnosis(Primary.WELL, f"{name} is primary, but {state.reason}")
    return Diagnosis(Primary.WELL, f"{name} is primary and takes writes")

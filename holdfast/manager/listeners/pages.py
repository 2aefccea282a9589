"""Entries of the history that are still being written, and the events that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.cluster import Cluster
from holdfast.core.history import aftermath, build
from holdfast.core.history.entry import Entry, Sort, What
from holdfast.core.record import Record
from holdfast.core.view import View
from holdfast.manager.leader.events import Event, EventKind


@dataclass(slots=True, eq=False)
class Page:
    """An entry that is still being written.

    :ivar version: in the store; 0 while it is not there
    :ivar written: what is in the store
    :ivar taken_over: it was under way, or over, when this manager began to lead: another may have written of it before
    :ivar reason: the key of the manager's last reason that is in it
    :ivar naming: what is to be compared when there is time: cluster, records before and after, and what was seen
    """

    entry: Entry
    version: int = 0
    written: Entry | None = None
    taken_over: bool = False
    reason: str = ""
    naming: tuple[Cluster, Record, Record, View] | None = None

    @property
    def begun_elsewhere(self) -> bool:
        """It may continue what another manager has written, which is not known yet."""
        return self.taken_over and not self.version and self.entry.what.is_transition


def heard(entry: Entry, event: Event) -> Entry:
    """The entry with the event, if that belongs to it."""
    match event.kind:
        case EventKind.COMMAND | EventKind.FAILED:
            done = event.kind is EventKind.COMMAND
            what = f"{event.command}, as ordered" if event.ordered else event.command
            sort = Sort.COMMAND if done else Sort.FAILED
            text = what if done else event.text
            noted = build.noted(
                entry, event.at, sort, text, event.member, event.ms, dict(event.steps)
            )
            is_old = done and event.member == entry.old and entry.what is not What.RESTART
            return aftermath.did(noted, event.command) if is_old else noted
        case EventKind.HOOK:
            return build.noted(entry, event.at, Sort.HOOK, event.text, "", event.ms)
        case EventKind.ALARM | EventKind.CONCERN | EventKind.DEGRADED | EventKind.ENDPOINT:
            return build.noted(entry, event.at, Sort.NOTE, event.text, event.member)
        case _:
            return entry

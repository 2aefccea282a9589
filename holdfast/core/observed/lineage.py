"""Which record comes after which, and what an agent remembers of the record.

Terms alone do not show this. A store that is put back from a backup begins again at a term that was used before, and
climbs past the terms that agents have promised if managers come and go for long enough. So each leadership has a name
that is made at random, each save of the record has the next revision, and the record lists the leaderships it descends
from with their last revisions (as Raft's log matching). A record *follows* what an agent remembers when the leadership
that wrote that is the present one, or one of those listed, and had not saved more than that list says.

Every command carries the record under which it was decided, and so does each poll of the leading manager once the
record has changed. An agent has the record on disk before it obeys (before a command of a new term begins, else before
it is answered). So:

1. A record that no agent received has had no effect: no agent obeyed it.
2. The newest record that had an effect is the newest one that any agent remembers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.core.record import Record, Reign, from_json, to_json

KEPT = 40
"""Leaderships that a record lists. A manager that makes no progress begins no term (``manager/leader/standing.py``), so
an older one is forgotten only after this many managers really led."""


@dataclass(frozen=True, slots=True)
class RecordMark:
    """Identifies what an agent remembers.

    :ivar revision: 0: it remembers no record
    :ivar settings: version of the settings that came with it
    :ivar digest: of the whole text
    """

    term: int = 0
    leader: str = ""
    revision: int = 0
    settings: int = 0
    digest: str = ""

    @property
    def age(self) -> tuple[int, int, int]:
        """Of two marks by one line of managers, the one with the higher age is the later one."""
        return self.term, self.revision, self.settings


@dataclass(frozen=True, slots=True)
class Memory:
    """What agents keep in case the store is lost.

    :ivar settings: the document that the store holds, :ivar version: of it
    :ivar agents: URL of each member's agent
    """

    record: Record
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    agents: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps(
            {
                "record": json.loads(to_json(self.record)),
                "settings": self.settings,
                "version": self.version,
                "agents": self.agents,
            },
            sort_keys=True,
        )


def memory(text: str) -> Memory:
    """:raises ValueError: when ``text`` is none of :meth:`Memory.text`"""
    try:
        data = json.loads(text)
        record = from_json(json.dumps(data["record"]))
        return Memory(record, dict(data["settings"]), int(data["version"]), dict(data["agents"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record: {error!r}") from None


def mark(text: str) -> RecordMark:
    """The mark of a text that may be a later version's: it reads as little as it can.

    :raises ValueError: ``text`` names no record
    """
    try:
        data = json.loads(text)
        record = data["record"]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        term, revision = int(record["term"]), int(record["revision"])
        return RecordMark(term, str(record["leader"]), revision, int(data["version"]), digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record: {error!r}") from None


def stamped(record: Record, before: Record | None, leader: str) -> Record:
    """``record`` as this leadership saves it in place of ``before``; its terms are above all earlier ones."""
    if before is None:
        return replace(record, leader=leader, revision=1)
    lineage = before.lineage
    if before.leader != leader:
        record = replace(record, term=max(record.term, before.term + 1))
    if before.leader != leader and before.revision:
        lineage = (*lineage, Reign(before.leader, before.term, before.revision))[-KEPT:]
    return replace(record, leader=leader, revision=before.revision + 1, lineage=lineage)


def late(told: RecordMark, remembered: RecordMark) -> bool:
    """Whether a command was decided on a record that its leadership has replaced since, as its agent knows.

    The command may have been delayed in a frozen host or in the network, and later ones have overtaken it. The term
    does not show this: voters come and go within one. A primary that obeyed a late command to wait for no
    acknowledgement, from when it served alone, would acknowledge what no voter has. So a late command is not obeyed; a
    leadership that still wants it decides it again.

    To compare with what the agent remembers is enough: before a configuration stands alone, its primary has obeyed a
    command of the record that has it, for the row that proves it, and remembers that record from then on. Until then
    the previous configuration is still in force.
    """
    return told.leader == remembered.leader and told.age < remembered.age


def follows(record: Record, remembered: RecordMark) -> bool:
    """Whether ``record`` is what is remembered, or was made from it.

    A record older than everything that ``record`` lists is taken to be of its line: a manager of an earlier version
    lists nothing.
    """
    if not remembered.revision:
        return True
    if remembered.leader == record.leader:
        return remembered.revision <= record.revision
    for reign in record.lineage:
        if reign.leader == remembered.leader:
            return remembered.revision <= reign.revision
    oldest = record.lineage[0].term if record.lineage else record.term
    return remembered.term < oldest

"""What entitles this manager to decide: its own leadership, and a record that agrees with what agents obeyed.

A term is begun only once every member was asked and no agent contradicts the record (``core/members/rollback.py``): a
store that was restored from a backup is left as it is, however often managers try.
"""

from __future__ import annotations

import secrets

from holdfast.core.cluster import Cluster
from holdfast.core.members.identity import identity_of
from holdfast.core.members.rollback import contradicted
from holdfast.core.observed.lineage import Memory, RecordMark, mark, stamped
from holdfast.core.record import Record
from holdfast.core.view import Unseen, View
from holdfast.http.wire import Told
from holdfast.manager.leader.desired import Configured
from holdfast.store.base import Stored


class Standing:
    """One leadership of one cluster.

    :ivar leader: names it
    :ivar begun: it has begun its own term: the record in the store is of this term
    :ivar refused: why nothing is decided, or ""
    :ivar put_back: the store itself shows that it is older than what was written to it, or \"\"
    """

    def __init__(self, configured: Configured) -> None:
        self.leader = secrets.token_hex(8)
        self.begun = False
        self.refused = ""
        self.put_back = ""
        self._configured = configured
        self._known: tuple[Record, int] | None = None
        self._text = ""
        self._mark = RecordMark()

    def first(self, record: Record) -> Record:
        """The record with which this leadership begins its term."""
        return self.next(record, record)

    def next(self, record: Record, before: Record | None) -> Record:
        """The record as it is saved in place of ``before``."""
        return stamped(record, before, self.leader)

    def loaded(self, cluster: Cluster, stored: Stored, seen: int) -> None:
        """Record how old the store is.

        :param seen: the highest version that this process has read or written
        """
        written = max(stored.written, seen)
        self.put_back = (
            f"the store holds version {stored.version} of the record of {cluster.name}, and version {written} was "
            "written: it was restored from a backup. Holdfast decides nothing until that is fixed, and the servers run "
            f"on unchanged: holdfast store repair {cluster.name}"
            if stored.version < written
            else ""
        )

    def waits(self, cluster: Cluster, view: View) -> str:
        """Why it is not known yet what agents obeyed, or ""."""
        if self.begun:
            return ""
        names = [
            name
            for name, sighting in sorted(view.members.items())
            if isinstance(sighting, Unseen) and not sighting.asked
        ]
        return f"asking {', '.join(names)} of {cluster.name} what was obeyed there" if names else ""

    def look(self, cluster: Cluster, record: Record, view: View) -> str:
        """Why nothing may be decided by this record, or ""."""
        mine = record if self.begun else self.first(record)
        self.refused = (
            contradicted(cluster, mine, view, record) or self.put_back or stranger(cluster, record)
        )
        return self.refused

    def told(self, cluster: Cluster, record: Record | None, name: str, view: View) -> Told:
        """What is sent with a command or a poll to that member."""
        known = identity_of(record, name)
        said = Told(cluster=cluster.name, member=name, identity=known)
        if record is None or not self.begun or self.refused:
            return said
        self._update(cluster, record)
        state = view.state(name)
        has = state is not None and state.record == self._mark
        return said.model_copy(
            update={
                "leader": self.leader,
                "mark": self._mark,
                "record": "" if has else self._text,
            }
        )

    def _update(self, cluster: Cluster, record: Record) -> None:
        version = self._configured.version
        if self._known == (record, version):
            return
        self._known = record, version
        document = self._configured.changed.document() if version else {}
        agents = {each.name: each.agent for each in cluster.members}
        self._text = Memory(record, document, version, agents).text()
        self._mark = mark(self._text)


def stranger(cluster: Cluster, record: Record) -> str:
    """Why nothing is decided if the primary is none of the members that are configured, or "": the manager's file was
    changed, or the record is older than the settings in the store."""
    if cluster.has(record.primary):
        return ""
    return (
        f"{record.primary} is the primary of {cluster.name}, and the configuration has no such member: put it back "
        f"into the manager's file; or, where the store was restored from a backup, holdfast store repair {cluster.name}"
    )

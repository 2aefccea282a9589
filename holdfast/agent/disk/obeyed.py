"""Which managers this agent obeys, and what it remembers of the record that it obeyed last.

A manager sends with each command, and with its polls, the id of its cluster, the agent that it means, and the record by
which it decides. The agent refuses a manager of another cluster, and a manager that takes it for another agent. It also
refuses a manager whose record does not follow the record obeyed here: its store was restored from a backup, or is
another one (``core/observed/lineage.py``).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from pathlib import Path

from holdfast.agent.disk.record_file import RecordFile
from holdfast.agent.disk.term import TermFile, replace_durably
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.members.rollback import LONGEST_JUMP, jump_allowed
from holdfast.core.observed.lineage import RecordMark, follows, late, mark, memory
from holdfast.errors import Fatal, HoldfastError, Refused, StaleTerm
from holdfast.http.wire import RecordReply, Told
from holdfast.log import say

logger = logging.getLogger(__name__)


def own_identity(state_dir: Path) -> str:
    """The agent's id: made once, and kept.

    :raises Fatal: it cannot be read or written
    """
    path = state_dir / "identity"
    try:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_text(encoding="ascii", errors="replace").strip()
            if found:
                return found
        made = secrets.token_hex(16)
        replace_durably(path, f"{made}\n")
    except OSError as error:
        raise Fatal(f"state_dir: cannot keep the agent's identity in {path}: {error}") from error
    return made


class Obeyed:
    """:ivar record: as it was received, or \"\""""

    def __init__(
        self,
        state_dir: Path,
        term: TermFile,
        published: PublishedState,
        writer: BackgroundWriter,
        cluster: str,
    ) -> None:
        self._file = RecordFile(state_dir)
        self._former = state_dir / "record"
        self._term = term
        self._published = published
        self._writer = writer
        self._cluster = cluster
        self._lock = threading.Lock()
        self.record, self._mark = self._read()
        published.change(record=self._mark)

    def refusal(self, term: int, told: Told) -> HoldfastError | None:
        """Why a command is refused; None if it may be obeyed. Changes nothing."""
        name, promised = self._published.state.name, self._term.promised
        if self._term.refuses(term, told.leader):
            return StaleTerm(name, term, promised)
        if not jump_allowed(promised, term):
            return Refused(
                f"{name} has promised term {promised}, and {term} is more than {LONGEST_JUMP} above it: no manager "
                "comes so far"
            )
        if stranger := self.stranger(told):
            return Refused(stranger)
        return self._other_line(told)

    @property
    def anybody(self) -> bool:
        """Whether this agent has ever obeyed a manager that had a record."""
        return bool(self._term.promised or self.record or self._mark.revision)

    def obeys(self, term: int, told: Told) -> bool:
        """Whether it would obey that manager in that term."""
        return self.refusal(term, told) is None

    def stranger(self, told: Told) -> str:
        """Why that manager means another agent than this, or "". Fields that it does not send are not compared."""
        state = self._published.state
        if told.cluster not in ("", self._cluster):
            return (
                f"this is {state.name} of the cluster {self._cluster}, and the manager is one of {told.cluster}: "
                "correct the agent's URL there"
            )
        if told.member not in ("", state.name):
            return f"this is {state.name}, but the manager expects {told.member}: correct the agent's URL there"
        if told.identity not in ("", state.identity):
            return f"this is another agent of {state.name} than the manager knows"
        return ""

    def _other_line(self, told: Told) -> Refused | None:
        if not told.mark.revision or told.mark == self._mark:
            return None  # a manager of an earlier version, before there is a record, or nothing new
        name = self._published.state.name
        if told.leader and told.leader == self._mark.leader:
            if not late(told.mark, self._mark):
                return None
            return Refused(
                f"{name} has obeyed revision {self._mark.revision} of that manager's record, and that was decided by "
                f"revision {told.mark.revision}: it is out of date"
            )
        if not told.record:
            return Refused(
                f"{name} does not have the record by which this command was decided: send it"
            )
        try:
            record = memory(told.record).record
            if mark(told.record) != told.mark:
                raise ValueError("it is not the one that is named")
        except ValueError as error:
            return Refused(f"{name} cannot read the record of the manager: {error}")
        if follows(record, self._mark) or name in record.forsaken:
            return None
        return Refused(
            f"{name} has obeyed revision {self._mark.revision} of term {self._mark.term}, and the record of that "
            "manager does not follow it: its store was put back, or is another one; see holdfast store repair"
        )

    def raise_to(self, term: int, told: Told) -> None:
        """Promise that term, and remember the record; on disk when this returns.

        :raises Refused: it cannot be written
        """
        self._term.raise_to(term, told.leader, told.record or self.record)
        if told.record:
            self._take(told)

    def remember(self, told: Told) -> None:
        """Remember the record of a command that is obeyed. From here on it survives the agent's process; after
        :meth:`settle` it survives the host.

        Clients' waits do not depend on the disk here.

        :raises Refused: it cannot be written
        """
        same = told.leader == self._mark.leader
        if not told.record or (same and told.mark.age <= self._mark.age):
            return
        with self._lock:
            try:
                self._file.write(told.record)
            except OSError as error:
                raise Refused(f"cannot write the record: {error}") from error
        self._take(told)

    def settle(self) -> None:
        """What was remembered survives a loss of power once this returns."""
        with self._lock:
            try:
                self._file.sync()
            except OSError as error:
                say(logger, f"cannot keep the record: {error}", logging.WARNING)

    def heard(self, told: Told) -> None:
        """Called with each poll of the leading manager: its record is remembered soon, if it may be believed. Never
        blocks."""
        if not told.record or told.mark.age <= self._mark.age:
            return
        term = told.mark.term
        if self._term.refuses(term, told.leader) or not jump_allowed(self._term.promised, term):
            return
        if self.stranger(told) or self._other_line(told):
            return

        def keep() -> None:
            if told.mark.age > self._mark.age:
                self.remember(told)
                self.settle()

        self._writer.do(keep)

    def told(self) -> RecordReply:
        """Returns what is remembered, for a repair of the store."""
        state = self._published.state
        return RecordReply(
            term=self._term.promised, identity=state.identity, mark=self._mark, record=self.record
        )

    def _take(self, told: Told) -> None:
        self.record, self._mark = told.record, told.mark
        self._published.change(record=told.mark)

    def _read(self) -> tuple[str, RecordMark]:
        """The latest valid content of its files. An unreadable record is not remembered; the term is."""
        texts, known = [self._term.record, self._file.text], [("", RecordMark())]
        with contextlib.suppress(OSError):  # a file of an earlier version
            texts.append(self._former.read_text(encoding="utf-8", errors="replace").strip())
        for text in texts:
            with contextlib.suppress(ValueError):
                known.append((text, mark(text)))
        return max(known, key=lambda each: each[1].age)

"""What is wrong with the data of this member, on disk: it survives the ends of agent and server."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.state_folder import unreadable
from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.observed.comparison import Difference
from holdfast.errors import Refused
from holdfast.server.data.rewind import RewindRepair


@dataclass(frozen=True, slots=True)
class _Known:
    """What an earlier version did not write has a default; a file that lacks anything else cannot be read.

    :ivar suspects, unfit, differs: as in ``MemberState``; :ivar repair: a rewind that was begun
    :ivar xa: what the binlog says of XA transactions, and the tables may not: see ``binlog/pending/doubts.py``
    :ivar unlogged: it crashed while it took writes: tables without transactions may have changed unnoticed
    :ivar reset: an operator has reset its binary log, which no longer shows whose data this is
    """

    suspects: tuple[str, ...]
    unfit: str
    repair: RewindRepair | None
    differs: tuple[Difference, ...] = ()
    xa: Mapping[str, str] = field(default_factory=dict)
    unlogged: bool = False
    reset: bool = False


_FORM = TypeAdapter(_Known)
_NOTHING = _Known((), "", None)


class Fitness:
    """Tables that a rewind touched, why the member must be cloned, and the rewind that is under way.

    Every fact is on disk before it is published.

    :ivar path: a file that cannot be read makes the member unfit
    """

    def __init__(self, state_dir: Path, published: PublishedState) -> None:
        self.path = state_dir / "fitness"
        self._published = published
        self._known = self._read()
        self._publish()

    @property
    def suspects(self) -> tuple[str, ...]:
        return self._known.suspects

    @property
    def unfit(self) -> str:
        return self._known.unfit

    @property
    def repair(self) -> RewindRepair | None:
        return self._known.repair

    @property
    def xa(self) -> Mapping[str, str]:
        return self._known.xa

    @property
    def unlogged(self) -> bool:
        return self._known.unlogged

    def doubt(self, tables: Iterable[str], xa: Mapping[str, str], unlogged: bool) -> None:
        """The server crashed, and these may differ from what its binlog says. :raises Refused:"""
        suspects = tuple(sorted({*self._known.suspects, *tables}))
        xa, unlogged = {**self._known.xa, **xa}, unlogged or self._known.unlogged
        known = replace(self._known, suspects=suspects, xa=xa, unlogged=unlogged)
        if known != self._known:
            self._write(known)

    def settled(self, unlogged: Collection[str], needless: Collection[str]) -> None:
        """The XA transactions are as the binlog says, and the tables to be compared are known.

        :param unlogged: those that may have changed unnoticed; :param needless: those that need not be compared
        """
        suspects = tuple(sorted({*self._known.suspects, *unlogged} - {*needless}))
        self._write(replace(self._known, suspects=suspects, xa={}, unlogged=False))

    def begin_rewind(self, repair: RewindRepair, touched: tuple[str, ...]) -> None:
        """:raises Refused: when it cannot be written, as from all that follow"""
        suspects = tuple(sorted({*self._known.suspects, *touched}))
        self._write(replace(self._known, repair=repair, suspects=suspects))

    def end_rewind(self) -> None:
        self._write(replace(self._known, repair=None))

    def compared(self) -> None:
        """The suspect tables are as they should be."""
        self._write(replace(self._known, suspects=()))

    @property
    def was_reset(self) -> bool:
        return self._known.reset

    def declare_unfit(self, reason: str, reset: bool = False) -> None:
        """:param reset: an operator has reset its binary log"""
        reset |= self._known.reset
        known = replace(self._known, unfit=" ".join(reason.split()), reset=reset)
        if known != self._known:
            self._write(known)

    def verified(self, found: Sequence[Difference], tables: Collection[str] = ()) -> None:
        """Record the result of a verification: all differences there are.

        :param tables: only these were compared; (): all
        """
        others = [each for each in self._known.differs if tables and each.table not in tables]
        differs = tuple(sorted([*others, *found], key=lambda each: each.table))
        if differs != self._known.differs:
            self._write(replace(self._known, differs=differs))

    def forget(self) -> None:
        """The data was replaced."""
        self._write(_NOTHING)

    def _write(self, known: _Known) -> None:
        try:
            if known == _NOTHING:
                remove_durably(self.path)
            else:
                replace_durably(self.path, json.dumps(asdict(known), indent=1) + "\n")
        except OSError as error:
            raise Refused(f"cannot write {self.path}: {error.strerror}") from error
        self._known = known
        self._publish()

    def _publish(self) -> None:
        # a clone that must be repeated has its own reason
        unfit = {"unfit": self._known.unfit} if self._known.unfit else {}
        self._published.change(suspects=self._known.suspects, differs=self._known.differs, **unfit)

    def _read(self) -> _Known:
        try:
            return _FORM.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return _NOTHING
        except (OSError, ValidationError) as error:
            unfit = f"{self.path} cannot be read, so a rewind may be half done: {unreadable(error)}"
            return replace(_NOTHING, unfit=unfit)

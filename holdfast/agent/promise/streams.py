"""Which streams of transactions a server had when it was last observed: if a returning server lacks a whole stream,
that was taken away.

Somebody has emptied its history while its agent did not observe it, or while it was down: ``RESET MASTER`` (MySQL:
``RESET BINARY LOGS AND GTIDS``), or binlog files that were removed together with their index. Such a server would start
over: it would fetch what its tables hold already, and skip what carries its own number. So it is cloned.

Its data may be given up for that only where it is certainly the cluster's. No history shows that any more, but the
agent knows the data that replicated in this cluster when it observed it (:func:`~holdfast.agent.disk.datadir.mark_of`).
Another cluster's data that was put in its place begins anew, too, and may be the only copy: an operator decides.

The end of a stream may be removed rightly (a Cut), seldom a whole stream: that of a server that had just begun to
write. After a Cut by this agent nothing is compared; after a rewind the next look is recorded. A server that ends in
between is cloned without need.

The file ``streams`` in the state directory is written when there is another stream, that is after a change of primary,
and when the data is known for the first time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import Receiver, TailVerdict
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Observation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    streams: frozenset[str]
    data: str


_FORM = TypeAdapter(_Kept)


class KnownStreams:
    """:param do: has something written without waiting for it
    :param unfit: called with why the data must be replaced, and whether it is this cluster's though its history was
        reset
    :param kill: ends the server; :param data: identifies the data; "" where nothing does
    """

    def __init__(
        self,
        published: PublishedState,
        state_dir: Path,
        do: Callable[[Callable[[], object]], None],
        unfit: Callable[[str, bool], None],
        kill: Callable[[str], object],
        data: Callable[[], str],
    ) -> None:
        self._published = published
        self._path = state_dir / "streams"
        self._do = do
        self._unfit = unfit
        self._kill = kill
        self._data = data
        self._known, self._ours = self._read()
        self._compared = ""

    def seen(self, found: Observation, incarnation: str) -> None:
        """To be called with each look before it is published, once the server belongs to a cluster.

        :raises Refused: it is a primary, and was killed
        """
        state = self._published.state
        streams = frozenset(parse(state.flavor, found.applied).streams)
        first = incarnation != self._compared
        self._compared = incarnation
        if first and state.tail.verdict is not TailVerdict.CUT and not state.unfit:
            gone = taken_away(state.flavor, self._known, streams)
            if gone:
                why = (
                    f"all transactions of {', '.join(gone)} are gone from its history: it was reset, or its binary "
                    "logs were removed, by hand"
                )
                self.unfit(why, True)
                if found.writable or found.semi_sync.source:  # no server can follow it any more
                    self._kill(why)
                    raise Refused(f"{why}: it was killed, and is cloned")
                return
        replicates = found.semi_sync.source or found.replication.receiver is Receiver.ON
        ours = self._ours or (self._data() if replicates else "")
        if (streams, ours) != (self._known, self._ours):
            self._known, self._ours = streams, ours
            self._do(lambda: self._write(streams, ours))

    def unfit(self, why: str, reset: bool) -> None:
        """:param reset: the history was reset: whose data this is must be known from before"""
        self._unfit(why, reset and bool(self._ours) and self._data() == self._ours)

    def forget(self) -> None:
        """The data was replaced."""
        self._known, self._ours = frozenset(), ""
        self._path.unlink(missing_ok=True)

    def _write(self, streams: Collection[str], ours: str) -> None:
        part = self._path.with_name(".streams.part")
        try:
            part.write_text(json.dumps({"streams": sorted(streams), "data": ours}) + "\n")
            part.replace(self._path)
        except OSError as error:
            say(logger, f"cannot write {self._path}: {error.strerror}", logging.WARNING)

    def _read(self) -> tuple[frozenset[str], str]:
        try:
            kept = _FORM.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return frozenset(), ""
        return kept.streams, kept.data


def taken_away(flavor: Flavor, known: Collection[str], streams: Collection[str]) -> list[str]:
    """Streams that somebody has taken away. A domain of MariaDB's that is gone as a whole while others are left may
    have been deleted (``FLUSH BINARY LOGS DELETE_DOMAIN_ID``): its tables keep what it was."""
    gone = sorted(set(known) - set(streams))
    if flavor is Flavor.MARIADB:
        domains = {stream.partition("-")[0] for stream in streams}
        gone = [each for each in gone if not domains or each.partition("-")[0] in domains]
    return gone

"""The domains in which this server has issued transactions that were taken back, kept on disk (MariaDB).

A GTID that was cut, rewound or given up with the data may still be on a server that is away. A promotion leaves a gap
in the numbers of every domain that the server knows (``server/mariadb.py``). A domain in which *everything* was taken
back is missing in its binlog state: its numbers would begin at 1 again. So such domains are recorded beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.agent.disk.term import replace_durably
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import MemberState
from holdfast.errors import Refused


class Domains:
    """:param flavor: MySQL has no domains, and gets a new UUID instead: nothing is kept"""

    def __init__(self, path: Path, flavor: Flavor) -> None:
        self._path = path
        self._kept = flavor is Flavor.MARIADB

    def known(self) -> frozenset[int]:
        """:raises Refused: they cannot be read"""
        try:
            return frozenset(int(line) for line in self._path.read_text().split())
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            raise Refused(f"cannot read {self._path}: {error}") from error

    def note_all(self, state: MemberState) -> None:
        """Record the domains of a running server whose data or transactions will be removed. For a server that is down,
        its cut has recorded them."""
        self.note(parse(state.flavor, state.applied or state.last_applied).streams)

    def note(self, streams: Iterable[str]) -> None:
        """Record streams (``domain-server``) of which transactions will be taken back. On disk when this returns.

        :raises Refused: it cannot be written
        """
        if not self._kept:
            return
        known = self.known()
        all_of_them = known | {int(stream.partition("-")[0]) for stream in streams}
        if all_of_them == known:
            return
        try:
            replace_durably(self._path, "".join(f"{each}\n" for each in sorted(all_of_them)))
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error

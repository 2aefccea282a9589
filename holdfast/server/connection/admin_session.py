"""A session that is not reopened when it is lost: what depends on its state must not continue in another."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import OutcomeUnknown
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.sql import Connection, _Wire


class AdminSession(Connection):
    """A session for a transaction, locks and session variables: they end with the connection.

    Use it in one thread; :meth:`close` it in the end.
    """

    def __init__(self, path: Path, account: Account) -> None:
        super().__init__(path, account)
        self._begun = False

    def _connected(self, deadline: Deadline) -> _Wire:
        if self._begun and (self._wire is None or self._wire.is_stale()):
            self._discard()
            raise OutcomeUnknown(
                f"{self._path}: the session was lost, and with it what it had begun"
            )
        self._begun = True
        return super()._connected(deadline)

"""How a server is set up to follow another, as the procedures need it."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.view import Receiver
from holdfast.server import encryption
from holdfast.server.base import Source

CONNECT_RETRY_SECONDS = 1
"""The smallest that both servers take."""

RECEIVER = {"Yes": Receiver.ON, "No": Receiver.OFF}
"""As SHOW REPLICA STATUS has it; all else (Connecting, Preparing) is on its way."""

ACCESS_DENIED = 1045


@dataclass(frozen=True, slots=True)
class Following:
    """How replication is configured and runs, as the procedures need it.

    :ivar host: of the source, or "" when none is configured
    :ivar connecting: the receiver has no connection: it may be in the pause of a second before it tries again
    :ivar tls: its certificates, as ``encryption.named`` says; nothing where it is not encrypted
    :ivar by_file: MariaDB's relay log is read by file and position, not by GTID
    :ivar received: whole transactions that the receiver has fetched, in the server's own text
    """

    host: str
    port: int
    user: str
    receiver: bool
    connecting: bool
    applier: bool
    receiver_code: int
    applier_error: str
    received: str
    tls: tuple[str, ...] = ()
    by_file: bool = False

    def is_from(self, source: Source) -> bool:
        """Whether this is the same source, and the server let our account in."""
        if source.account.tls is not None and self.tls != encryption.named(source.account.tls):
            return False
        return (self.host, self.port, self.user) == (
            source.host,
            source.port,
            source.account.user,
        ) and self.receiver_code != ACCESS_DENIED

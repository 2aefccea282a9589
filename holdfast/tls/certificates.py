"""One process's certificate: read again when its files are renewed, and shown to others with a token."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core.answers.access import AccessRole
from holdfast.errors import HoldfastError
from holdfast.tls.contexts import Files, Needed, contexts, days_left

LOOK_SECONDS = 10.0
"""How often the files are checked."""
WARN_DAYS = 30
WARN_AGAIN_SECONDS = 86400.0

logger = logging.getLogger(__name__)


class Token(Protocol):
    """A bearer token that may change."""

    @property
    def sent(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows: a bearer token, a certificate, both or neither.

    :ivar token: the token, or an object that has the current one
    :ivar context: for outgoing connections; without one, a server that speaks TLS is judged by the authorities that the
        system trusts
    """

    token: str | Token | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = None

    def to(self, url: str) -> Credentials:
        """The credentials for that URL: a token that TLS has to protect is not sent in clear."""
        return self if self.context is None or url.startswith("https://") else Credentials()

    @property
    def headers(self) -> dict[str, str]:
        sent = self.token.sent if self.token and not isinstance(self.token, str) else self.token
        return {"Authorization": f"Bearer {sent}"} if sent else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """As httpx expects it."""
        return self.context or True


class Newest(ssl.SSLContext):
    """Stands for the contexts of files that are renewed: makes each connection with the current one."""

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.newest.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self.newest.wrap_socket(*args, **kwargs)


class Certificates:
    """One process's certificate, and the CA that it trusts.

    :param key: the prefix of the names ca, cert and key in messages
    :param needed: what the certificate must say so that peers accept this process as a server
    :param expected: the role of the peers that it connects to
    :ivar server, client: contexts for both sides; valid for the life of the process
    """

    def __init__(
        self,
        files: Files,
        key: str = "tls.",
        needed: Needed | None = None,
        expected: AccessRole | None = None,
    ) -> None:
        """:raises BadInput: naming the file, and what is wrong with it"""
        self.files = files
        self._asked_of = (key, needed, expected)
        self.server = Newest(ssl.PROTOCOL_TLS_SERVER)
        self.client = Newest(ssl.PROTOCOL_TLS_CLIENT)
        self._stamp = _stamp(files)
        self.server.newest, self.client.newest = contexts(files, *self._asked_of)
        self._ended = threading.Event()

    def look(self) -> bool:
        """Take over renewed files; returns whether there were any.

        :raises BadInput: the renewed files are not good: the former ones stay in use, and the next call tries again
        """
        stamp = _stamp(self.files)
        if stamp == self._stamp:
            return False
        self.server.newest, self.client.newest = contexts(self.files, *self._asked_of)
        self._stamp = stamp
        return True

    def keep_fresh(self) -> None:
        """Check the files now and then, in a thread: a disk that stalls must not delay a lease."""
        threading.Thread(target=self._run, name="certificates", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        said = ""
        waited = WARN_AGAIN_SECONDS
        while True:
            try:
                if self.look():
                    logger.info("renewed certificates are in use: %s", self.files.cert)
                    waited = WARN_AGAIN_SECONDS
                said = ""
            except HoldfastError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("renewed certificates are not taken: %s", said)
            if waited >= WARN_AGAIN_SECONDS:
                self._warn()
                waited = 0.0
            waited += LOOK_SECONDS
            if self._ended.wait(LOOK_SECONDS):
                return

    def _warn(self) -> None:
        for path in (self.files.cert, self.files.ca):
            try:
                left = days_left(path)
            except HoldfastError:
                continue
            if left < WARN_DAYS:
                logger.warning("%s expires in %d days: renew it", path, max(0, left))


def _stamp(files: Files) -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in (files.ca, files.cert, files.key):
        try:
            is_now = path.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((is_now.st_ino, is_now.st_mtime_ns, is_now.st_size))
    return tuple(found)

"""Tries the member's two accounts again every few seconds, in a separate thread: see ``core/members/accounts.py``.

If an operator has changed a password, or dropped or locked an account, nothing shows it as long as earlier sessions
last: until the server is to be promoted, or its receiver must connect again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.config.schema import ServerConfig
from holdfast.core.view import MemberState, Receiver
from holdfast.errors import HoldfastError
from holdfast.log import say
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection.sql import Connection
from holdfast.server.replication import logins

EVERY_SECONDS = 5.0
MENDED_SECONDS = 2 * EVERY_SECONDS
"""Within this time after an account was repaired its member has tried it again."""
SECONDS = 1.0
"""How long one attempt may take."""

logger = logging.getLogger(__name__)

OwnLogin = Callable[[], str]
LetIn = Callable[[Source], str]


class KeptLogins:
    """Changes ``MemberState.logins``: several threads do, each a part of it."""

    def __init__(self, published: PublishedState) -> None:
        self._published = published
        self._lock = threading.Lock()
        self._mended: dict[str, float] = {}

    def change(self, during: str, **fields: Any) -> bool:
        with self._lock:
            found = replace(self._published.state.logins, **fields)
            return self._published.change(during=during, logins=found)

    def mended(self, during: str, account: str, logged: bool) -> None:
        with self._lock:
            self._mended[account] = self._published.clock.monotonic()
            owed = set(self._published.state.logins.owed)
            owed = owed - {account} if logged else owed | {account}
        self.change(during, mended=tuple(sorted(self._mended)), owed=tuple(sorted(owed)))

    def forget(self, during: str) -> None:
        """Forget repaired accounts that their members must have tried since."""
        with self._lock:
            now = self._published.clock.monotonic()
            kept = {a: at for a, at in self._mended.items() if now - at < MENDED_SECONDS}
            news = len(kept) != len(self._mended)
            self._mended = kept
        if news:
            self.change(during, mended=tuple(sorted(kept)))


class LoginWatch:
    """:param own: tries the agent's account on its own server; :param let_in: the replication account at a source. Both
        return why they were refused, or "", and raise :class:`HoldfastError` where that cannot be determined
    :ivar also: what else is checked as often
    """

    def __init__(
        self,
        published: PublishedState,
        told: KeptLogins,
        replication: Account,
        own: OwnLogin,
        let_in: LetIn,
        password_file: Path,
    ) -> None:
        self._published = published
        self._told = told
        self._replication = replication
        self._own = own
        self._let_in = let_in
        self._file = password_file
        self.also: list[Callable[[], None]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logins", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def step(self) -> None:
        """Try both once. What cannot be determined now stays as it was published last."""
        state = self._published.state
        self._told.forget(state.incarnation)
        if not state.up:
            return self._publish(state, denied="", shut_out="")
        shut_out = _tried(self._own, state.logins.shut_out)
        replication = state.replication
        denied = ""
        if replication.source and replication.receiver is Receiver.ON and not state.busy:
            host, _, port = replication.source.rpartition(":")
            source = Source(host, int(port), self._replication.fresh())
            denied = _tried(lambda: self._let_in(source), state.logins.denied)
        return self._publish(state, denied, shut_out)

    def _publish(self, state: MemberState, denied: str, shut_out: str) -> None:
        before = state.logins
        if not shut_out:  # also where another run of the server has made it forgotten
            self._published.alarm("logins", "")
        if (denied, shut_out) == (before.denied, before.shut_out):
            return
        for text in {denied, shut_out} - {"", before.denied, before.shut_out}:
            say(logger, f"the login of an account is refused: {text}", logging.WARNING)
        if self._told.change(state.incarnation, denied=denied, shut_out=shut_out):
            mend = f"put its present password into {self._file} (it is read again), or set that one"
            told = f"its server refuses new sessions of its agent's account ({shut_out})"
            if shut_out:
                self._published.alarm("logins", f"{told}: {mend}")

    def _run(self) -> None:
        while not self._published.clock.wait(self._stopped, EVERY_SECONDS):
            try:
                for step in (self.step, *self.also):
                    step()
            except Exception:  # the loop must not end: without it the accounts are not tried
                logger.exception("trying the accounts failed")


def watching(
    published: PublishedState,
    told: KeptLogins,
    own: ServerConfig,
    admin: Account,
    replication: Account,
) -> LoginWatch:
    """A watch on real servers."""
    connection = Connection(own.socket, admin)
    flavor = published.state.flavor
    return LoginWatch(
        published,
        told,
        replication,
        lambda: logins.own_login(connection, Deadline(SECONDS, clock=published.clock)),
        lambda source: logins.let_in(flavor, source, SECONDS),
        own.admin.password_file,
    )


def _tried(attempt: Callable[[], str], before: str) -> str:
    try:
        return attempt()
    except HoldfastError:
        return before

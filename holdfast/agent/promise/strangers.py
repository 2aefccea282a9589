"""Prevents that anything but a member acknowledges a primary's commits; see ``core/rules/ackers.py``.

A separate thread reads the replicas' sessions many times a second while commits wait for acknowledgements.
``docs/servers.md`` says what one such look costs the server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.term import replace_durably
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import parse
from holdfast.core.observed.dumps import Doubt, Dump
from holdfast.core.rules.ackers import in_doubt, nameless, strangers
from holdfast.core.view import MemberState
from holdfast.errors import HoldfastError, Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Dumps

EVERY_SECONDS = 0.05
IDLE_SECONDS = 1.0
LOOK_SECONDS = 1.0
END_SECONDS = 2.0
SAY_SECONDS = 6.0
"""For so long a stranger is a reason in the status; and as long as its account is locked, which is checked every 5
s."""

_FORM = TypeAdapter(Doubt)

logger = logging.getLogger(__name__)


class Strangers:
    """:ivar seen: how often there were some
    :ivar let_through: called before they are ended: a commit may have been released without a voter

    :param accounts: of all members; none: not known, and nobody is a stranger
    """

    def __init__(
        self,
        dumps: Dumps,
        published: PublishedState,
        accounts: Callable[[], frozenset[str]],
        state_dir: Path,
    ) -> None:
        self.seen = 0
        self.let_through: Callable[[], None] = lambda: None
        self._dumps = dumps
        self._published = published
        self._clock = published.clock
        self._accounts = accounts
        self._path = state_dir / "doubt"
        self._turn = threading.RLock()
        self._clean = ""
        self._unsettled = False
        self._idle_until = 0.0
        self._since: dict[int, float] = {}
        self._told: dict[str, tuple[float, str]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="strangers", daemon=True)
        published.change(doubt=self._read())

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def step(self) -> None:
        """Look once, if commits wait for acknowledgements; else now and then, to be ready when they do."""
        state, now = self._published.state, self._clock.monotonic()
        if state.up and state.semi_sync.source:
            self._look(state, self._within(LOOK_SECONDS), fresh=False)
        else:
            self._clean = ""
            if state.dumps:
                self._published.change(dumps=())
            if state.doubt and state.replication.source:
                self.forget()  # it came while this server became a replica
            if state.up and now >= self._idle_until:
                self._idle_until = now + IDLE_SECONDS
                with self._turn:
                    self._dumps.look(self._within(LOOK_SECONDS), fresh=False)
        self._tell(state)

    def refuse_if_there(self, seen: int, deadline: Deadline) -> None:
        """Check that voters acknowledged the primary's last own row: no stranger was there since ``seen``.

        Then voters have everything before that row, and no doubt is left.

        :raises Refused: a stranger was there
        """
        with self._turn:
            self._look(self._published.state, deadline, fresh=True)
            if self.seen != seen:
                raise Refused("the row may have been acknowledged by a replica that is no voter")
            self.forget()

    def forget(self) -> None:
        """Voters have everything that was in doubt; or this server is no primary any more."""
        with self._turn:
            self._unsettled = False
            self._path.unlink(missing_ok=True)
            if self._published.state.doubt is not None:
                self._published.change(doubt=None)

    def end(self, sessions: Sequence[int], why: str, deadline: Deadline) -> None:
        """End sessions of which a manager knows that they are no voters'."""
        with self._turn:
            self._end(self._published.state, sessions, why, deadline)
            self._look(self._published.state, deadline, fresh=True)

    def _look(self, state: MemberState, deadline: Deadline, fresh: bool) -> None:
        with self._turn:
            accounts = self._accounts()
            look = self._dumps.look(deadline, fresh)
            found = strangers(look.dumps, look.clients, accounts) if accounts else ()
            odd = nameless(look.dumps, accounts, self._lasting(look.dumps))
            if found:
                self._dismiss(state, found)
            elif odd:
                why = "; ".join(
                    {
                        f"{_who(dump)} acknowledged, but does not say which server it is"
                        for dump in odd
                    }
                )
                self._end(state, [dump.session for dump in odd], why, self._within(END_SECONDS))
            elif self._unsettled:
                # on MySQL what was just released may not have been committed by then
                self._doubt(state, "", self._dumps.applied(deadline))
                self._unsettled = False
            else:
                self._clean = state.applied
            left = tuple(dump for dump in look.dumps if dump not in (*found, *odd))
            if left != self._published.state.dumps:
                self._published.change(during=state.incarnation, dumps=left)

    def _within(self, seconds: float) -> Deadline:
        return Deadline(seconds, clock=self._clock)

    def _lasting(self, dumps: Sequence[Dump]) -> dict[int, float]:
        """For how many seconds each session has existed."""
        now = self._clock.monotonic()
        self._since = {dump.session: self._since.get(dump.session, now) for dump in dumps}
        return {session: now - since for session, since in self._since.items()}

    def _dismiss(self, state: MemberState, found: Sequence[Dump]) -> None:
        deadline = self._within(END_SECONDS)
        self.let_through()
        accounts = {dump.account for dump in found}
        locked = {each for each in accounts if self._dumps.shut_out(each, deadline)}
        told = {dump.account: _described(dump, dump.account in locked) for dump in found}
        now = self._clock.monotonic()
        self._told |= {account: (now, text) for account, text in told.items()}
        why = "; ".join(told.values())
        self._end(state, [dump.session for dump in found], why, deadline)

    def _end(
        self, state: MemberState, sessions: Sequence[int], why: str, deadline: Deadline
    ) -> None:
        self.seen += 1
        self.let_through()
        try:
            self._dumps.end(tuple(sessions), deadline)
        finally:
            self._doubt(state, why, self._dumps.applied(deadline))
            self._unsettled = True

    def _doubt(self, state: MemberState, why: str, applied: str) -> None:
        """:param why: "": as before"""
        before = self._published.state.doubt
        clean = parse(state.flavor, self._clean or state.applied)
        upto = parse(state.flavor, applied)
        if before is not None:
            upto = upto.union(parse(state.flavor, before.upto))
        number = upto.subtract(clean).count()
        reasons = [before.why] if before else []
        if why and why not in reasons:
            reasons.append(why)
        doubt = Doubt(str(upto), number, "; ".join(reasons))
        self._published.change(doubt=doubt)
        if why:
            say(logger, in_doubt(state.name, doubt), logging.WARNING)
        try:
            replace_durably(self._path, _FORM.dump_json(doubt).decode())
        except OSError as error:
            say(logger, f"cannot write {self._path}: {error.strerror}", logging.WARNING)

    def _tell(self, state: MemberState) -> None:
        """Publish a reason in the status for a while; and as long as an account is locked for it where commits wait. On
        a replica a locked account has no effect, and on MySQL it could not be unlocked there."""
        if not self._told:
            return
        now = self._clock.monotonic()
        self._told = {
            account: (at, text)
            for account, (at, text) in self._told.items()
            if now - at < SAY_SECONDS or account in state.barred
        }
        shown = [
            text
            for at, text in self._told.values()
            if now - at < SAY_SECONDS or state.semi_sync.source
        ]
        self._published.alarm("strangers", "; ".join(shown))

    def _read(self) -> Doubt | None:
        try:
            return _FORM.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None

    def _run(self) -> None:
        complaint = ""
        while not self._clock.wait(self._stopped, EVERY_SECONDS):
            try:
                self.step()
                complaint = ""
            except HoldfastError as error:
                # the observer reports that the server does not answer, but not what it refuses
                if str(error) != complaint and isinstance(error, Refused):
                    say(logger, f"looking at the replicas: {error}", logging.WARNING)
                complaint = str(error)
            except Exception as error:  # without this thread anybody could acknowledge
                if str(error) != complaint:
                    logger.exception("looking at the replicas failed")
                complaint = str(error)


def _described(dump: Dump, locked: bool) -> str:
    done = "was ended and its account locked" if locked else "was ended"
    # written to the binlog it would wait for a voter, and keep all others out of the server meanwhile
    unlock = f", then here SET sql_log_bin = 0; ALTER USER {dump.account} ACCOUNT UNLOCK"
    mend = unlock if locked else ""
    return f"{_who(dump)} acknowledged, is no member, and {done}: switch its semi-sync off{mend}"


def _who(dump: Dump) -> str:
    server = f"server {dump.server}" if dump.server else "a server"
    return f"{server} at {dump.host or 'this host'}, {dump.account},"

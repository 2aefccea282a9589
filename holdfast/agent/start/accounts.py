"""Equips a server that an operator has started, creates and repairs its replication accounts, and initialises its
data."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.agent.member import LocalMember
from holdfast.agent.runtime.asking import fetch_account
from holdfast.agent.start.founding import Founding
from holdfast.agent.start.login_watch import KeptLogins
from holdfast.core.commands import EnsureAccount, Equip, Initialise, MendAccount
from holdfast.errors import Refused
from holdfast.server.authentication import Login
from holdfast.server.base import Deadline
from holdfast.server.inspect.adopting import Adopter

Done = Callable[[str], None]


class ReplicationAccounts:
    def __init__(
        self, member: LocalMember, adopter: Adopter, told: KeptLogins, founding: Founding
    ) -> None:
        self._server = member.server
        self._server_run = member.server_run
        self._published = member.published
        self._marker = member.relaxed
        self._shown = member.shown
        self._encrypted = member.own.tls is not None
        self._adopter = adopter
        self._told = told
        self._founding = founding

    def close(self) -> None:
        self._adopter.close()

    def perform(
        self,
        command: Equip | EnsureAccount | MendAccount | Initialise,
        deadline: Deadline,
        done: Done,
    ) -> None:
        if isinstance(command, Initialise):
            self._founding.perform(command, deadline, done)
            return
        self._admit(command)
        match command:
            case Equip():
                if self._adopter.relaxed(deadline):
                    self._marker.mark()  # until its first proof
                self._adopter.equip(deadline)
                done("equipped")
            case EnsureAccount(user=user, authentication=authentication):
                self._adopter.ensure_account(user, authentication, deadline)
                done("account made")
            case MendAccount():
                self._mend(command, deadline, done)

    def _admit(self, command: Equip | EnsureAccount | MendAccount) -> None:
        """A server without semi-sync cannot be observed yet: it need not be published as up to be equipped."""
        state = self._published.state
        if isinstance(command, Equip):
            if self._server_run.current() is None:
                raise Refused("cannot equip: the server is not running")
            return
        what = f"the account {command.user} is not created: "
        if self._server_run.current() is None or not state.up:
            raise Refused(f"{what}the server of {state.name} is {state.server}")
        unlogged = isinstance(command, MendAccount) and not command.logged
        if state.replication.source and not unlogged:
            raise Refused(f"{what}{state.name} follows {state.replication.source}")

    def _mend(self, command: MendAccount, deadline: Deadline, done: Done) -> None:
        state = self._published.state
        account = fetch_account(command.member, command.agent, self._shown, deadline)
        done("password asked")
        if account.user != command.user:
            raise Refused(
                f"the agent of {command.member} uses the account {account.user}, but the manager expects "
                f"{command.user}: restart the manager"
            )
        if command.logged:
            if command.user not in (state.replicators or ()):
                raise Refused(f"{state.name} has no account {command.user}: it is created first")
            self._adopter.mend_logged(account.user, account.authentication, deadline)
        else:
            login = Login(account.authentication, self._encrypted)
            self._server.mend_account(account.user, login, deadline)
        self._told.mended(state.incarnation, command.user, command.logged)
        done("account mended")

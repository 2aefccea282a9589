"""The agents' HTTP API as data: the messages between manager and agent.

GET  /v1/state?since=VERSION&wait=SECONDS   -> StateReply, at once when VERSION is not the present one
GET  /v1/identity                           -> Identity
GET  /v1/facts?counting=true                -> FactsReply: what a check looks at; false: at once, no tables counted
GET  /v1/account?nonce=NONCE                -> AccountReply
GET  /v1/blockers?seconds=SECONDS           -> BlockersReply: what is older than that
GET  /v1/record                             -> RecordReply: what the agent remembers of the record
POST /v1/watch                              WatchRequest -> StateReply; as GET state, and renews a primary's lease
POST /v1/vouch                              VouchRequest -> VouchReply: an agent asks another one
POST /v1/reach                              ReachRequest -> ReachReply: which server lets its replication account in
POST /v1/command                            CommandRequest -> CommandReply
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from holdfast.core.check.facts import Facts
from holdfast.core.commands import Command, name_of
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Electorate
from holdfast.core.observed.blockers import Blocker
from holdfast.core.observed.lineage import RecordMark
from holdfast.core.view import MemberState
from holdfast.errors import (
    BadInput,
    HoldfastError,
    OutcomeUnknown,
    Refused,
    StaleTerm,
    Unreachable,
    first_wrong,
)

_COMMANDS: dict[str, TypeAdapter[Any]] = {
    name_of(kind): TypeAdapter(kind) for kind in get_args(Command)
}
_ERRORS: dict[str, type[HoldfastError]] = {
    kind.__name__: kind for kind in (Refused, Unreachable, OutcomeUnknown)
}


def command_name(command: Command) -> str:
    return name_of(type(command))


class Told(BaseModel):
    """The sender, the agent that it means, and the record by which it decides; see ``core/observed/lineage.py``.

    "" means not said: a manager of an earlier version says nothing.

    :ivar identity: of the agent that is meant
    :ivar leader: names the leadership, with the term
    :ivar record: the text of ``core.observed.lineage.Memory``; "" where the agent has said that it remembers ``mark``
    """

    cluster: str = ""
    member: str = ""
    identity: str = ""
    leader: str = ""
    mark: RecordMark = RecordMark()
    record: str = Field(default="", repr=False)


class Grant(BaseModel):
    """The primary may answer clients until its agent's clock shows ``until``.

    :ivar run: the run of the agent that the clock belongs to: void for another one
    :ivar lease: how long a lease is, in seconds
    :ivar term: of the manager: void where a higher one was promised; :ivar leader: void where the term was promised to
        another
    """

    run: str
    until: float
    lease: float
    term: int
    leader: str = ""
    electorate: Electorate


class CommandRequest(BaseModel):
    """``command`` is one of the names of ``core.commands`` in snake case.

    :ivar grant: takes effect before the command is carried out: a new primary opens under it
    """

    term: int
    command: str
    arguments: dict[str, Any] = {}
    grant: Grant | None = None
    told: Told = Told()

    @classmethod
    def of(
        cls, term: int, command: Command, grant: Grant | None = None, told: Told | None = None
    ) -> CommandRequest:
        arguments = dataclasses.asdict(command)
        name = command_name(command)
        return cls(term=term, command=name, arguments=arguments, grant=grant, told=told or Told())

    def parsed(self) -> Command:
        """:raises BadInput: for an unknown command or wrong arguments"""
        if self.command not in _COMMANDS:
            raise BadInput("command", f"{self.command!r} is none of {', '.join(_COMMANDS)}")
        try:
            command: Command = _COMMANDS[self.command].validate_python(self.arguments)
        except ValidationError as error:
            # not pydantic's own text: that shows the values, and one may be an authentication string
            wrong = first_wrong(error.errors(include_url=False, include_input=False))
            place = ".".join(("arguments", *map(str, wrong.place)))
            raise BadInput(place, wrong.message) from None
        return command


class CommandReply(BaseModel):
    """How a command ended.

    :ivar state: the member right after it
    :ivar steps: milliseconds of each part of the work, in order
    :ivar error: name of the error's class (Refused, Unreachable, OutcomeUnknown), or "" for success
    :ivar promised: with a stale term: the term that the agent has promised
    """

    state: MemberState
    version: int
    steps: dict[str, float] = {}
    error: str = ""
    message: str = ""
    promised: int = 0

    def fail(self, member: str, term: int) -> None:
        """Raise the agent's error here."""
        if self.promised:
            raise StaleTerm(member, term, self.promised)
        if self.error:
            raise _ERRORS.get(self.error, Refused)(self.message).by(member)


class StateReply(BaseModel):
    """:ivar version: grows with every change but that of positions and lag; restarts with the agent
    :ivar clock: the agent's clock for leases, in seconds, right before it answered
    :ivar run: names this run of the agent, and so that clock
    """

    state: MemberState
    version: int
    clock: float = 0.0
    run: str = ""


class WatchRequest(BaseModel):
    """The leading manager's long poll.

    :ivar since: the version that is known; None: answer at once
    :ivar wait: seconds after which it is answered even if nothing has changed: the heartbeat
    :ivar grant: for the primary; it takes effect at once, not when the poll is answered
    """

    since: int | None = None
    wait: float = 0.0
    grant: Grant | None = None
    told: Told = Told()


class VouchRequest(BaseModel):
    """:ivar member: the primary that asks
    :ivar address: ``host:port`` of its server, as its replicas know it
    :ivar seconds: for how long it will rely on the answer, counted from before it asked
    """

    member: str
    address: str
    seconds: float


class VouchReply(BaseModel):
    """:ivar reason: why not, or "" """

    vouched: bool
    reason: str = ""


class Identity(BaseModel):
    """The identity of an agent's member, as its files give it; "" or 0 where they do not.

    :ivar account: its own replication account
    """

    cluster: str
    name: str
    flavor: Flavor
    account: str = ""
    host: str = ""
    port: int = 0
    server_id: int = 0


class RecordReply(BaseModel):
    """What an agent remembers: a text of ``core.observed.lineage.Memory``, or "".

    :ivar term: that it has promised
    """

    term: int
    identity: str = ""
    mark: RecordMark = RecordMark()
    record: str = Field(default="", repr=False)


class FactsReply(BaseModel):
    """:ivar clock: the host's wall clock, right before the answer was sent"""

    facts: Facts
    clock: float


class AccountReply(BaseModel):
    """A member's replication account; ``authentication`` is what a server stores instead of the password.

    :ivar admin: a mark of the agent's administrative account, made with the given nonce, to be compared with those of
        other members; "" without one
    :ivar public_key: of the member's own server, in PEM: with which MySQL has passwords encrypted; "" where it has none
    """

    user: str
    authentication: str = Field(repr=False)
    public_key: str = ""
    admin: str = Field(default="", repr=False)


class BlockersReply(BaseModel):
    """What would delay the primary if it were to stop taking writes now, the oldest first."""

    blockers: tuple[Blocker, ...] = ()


class ReachRequest(BaseModel):
    """:ivar public_key: of the server that should be there, as its agent says
    :ivar term, told: of the manager that leads, which may have the server follow any address, and so try any
    """

    host: str
    port: int = Field(ge=1, le=65535)
    public_key: str = ""
    term: int = 0
    told: Told = Told()


class ReachReply(BaseModel):
    """:ivar error: why no server answers there, or ""; :ivar uuid: of a MySQL server"""

    server_id: int = 0
    uuid: str = ""
    error: str = ""


def consequence(error: HoldfastError) -> str:
    """The name that stands for the class of ``error`` in messages."""
    return next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "Refused")

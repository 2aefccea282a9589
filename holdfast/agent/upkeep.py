"""Puts together what looks after accounts, and founds a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holdfast.agent.accounts import Accounts
from holdfast.agent.board import Board
from holdfast.agent.disabled_events import DisabledEvents
from holdfast.agent.flushing import RelaxedMarker
from holdfast.agent.founding import Founding
from holdfast.agent.login_watch import KeptLogins, LoginWatch, watching
from holdfast.agent.watch import Watch
from holdfast.config.schema import AgentConfig
from holdfast.server import events
from holdfast.server.adopting import Adopter
from holdfast.server.base import Account, Server
from holdfast.server.sql import Connection
from holdfast.tls import Credentials


@dataclass(frozen=True, slots=True)
class Upkeep:
    accounts: Accounts
    logins: LoginWatch
    founding: Founding


def upkeep(
    config: AgentConfig,
    server: Server,
    watch: Watch,
    board: Board,
    marker: RelaxedMarker,
    shown: Credentials,
    admin: Account,
    replication: Account,
    obeyed: Callable[[], bool],
) -> Upkeep:
    """:param obeyed: whether this agent has ever obeyed anybody, or its data are being cloned"""
    own = config.server
    encrypted = own.tls is not None
    logins = KeptLogins(board)
    adopter = Adopter(own.flavor, own.socket, admin, encrypted=encrypted)
    founding = Founding(
        board, watch, own, admin, replication, config.state_dir.absolute(), shown, obeyed
    )
    accounts = Accounts(
        server, watch, board, adopter, marker, shown, logins, founding, encrypted=encrypted
    )
    watch_logins = watching(board, logins, own, admin, replication)
    session = Connection(own.socket, admin)
    disabled = DisabledEvents(board, partial(events.write_down, session))
    watch_logins.also.append(disabled.step)
    return Upkeep(accounts, watch_logins, founding)

"""Puts together what looks after accounts, and founds a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.promise.disabled_events import DisabledEvents
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.start.accounts import ReplicationAccounts
from holdfast.agent.start.founding import Founding
from holdfast.agent.start.login_watch import KeptLogins, LoginWatch, watching
from holdfast.config.schema import AgentConfig
from holdfast.server.base import Account, Server
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import Adopter
from holdfast.server.primary import events
from holdfast.tls import Credentials


@dataclass(frozen=True, slots=True)
class Upkeep:
    accounts: ReplicationAccounts
    logins: LoginWatch
    founding: Founding


def upkeep(
    config: AgentConfig,
    server: Server,
    watch: ServerRun,
    board: PublishedState,
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
    accounts = ReplicationAccounts(
        server, watch, board, adopter, marker, shown, logins, founding, encrypted=encrypted
    )
    watch_logins = watching(board, logins, own, admin, replication)
    session = Connection(own.socket, admin)
    disabled = DisabledEvents(board, partial(events.write_down, session))
    watch_logins.also.append(disabled.step)
    return Upkeep(accounts, watch_logins, founding)

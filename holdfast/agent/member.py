"""The member of this host, as the parts of its agent use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.config.schema import ServerConfig
from holdfast.server.base import Account, Server
from holdfast.tls import Credentials


@dataclass(frozen=True, slots=True)
class LocalMember:
    """:ivar published: what the agent publishes of it; :ivar server_run: the run of its server
    :ivar server: executes statements on it; :ivar own: its server, as the agent's file describes it
    :ivar admin: the account of the agent; :ivar replication: the account by which the server logs in to its source
    :ivar shown: the credentials that this agent shows to other members' agents
    :ivar state_dir: the folder of the agent's state, as an absolute path
    :ivar relaxed: whether something may not have been flushed
    """

    published: PublishedState
    server_run: ServerRun
    server: Server
    own: ServerConfig
    admin: Account
    replication: Account
    shown: Credentials
    state_dir: Path
    relaxed: RelaxedMarker

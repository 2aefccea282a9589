"""The identity of this agent's member, as its files give it; requested before the member joins a cluster."""

from __future__ import annotations

from holdfast.config.schema import AgentConfig
from holdfast.http.wire import Identity
from holdfast.server.process import boot


def identity(config: AgentConfig) -> Identity:
    """Fields that the option file and the files it includes do not set stay "" or 0."""
    own = config.server
    found = boot.read(own.option_file, own.flavor, "", own.datadir).options
    return Identity(
        cluster=config.cluster,
        name=config.name,
        flavor=own.flavor,
        account=config.replication.user,
        host=found.get("report_host", ""),
        port=_number(found.get("port", "")),
        server_id=_number(found.get("server_id", "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0

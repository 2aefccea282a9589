"""Who this agent's member is, as its files say: asked before it is made a member of a cluster."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.config.schema import AgentConfig
from holdfast.http.wire import Identity

GROUPS = ("mysqld", "mariadb", "mariadbd", "server")
_LINE = re.compile(r"\s*(port|server[-_]id|report[-_]host)\s*=\s*['\"]?([^'\"\s#]+)")


def identity(config: AgentConfig) -> Identity:
    """What the option file does not say itself stays "" or 0; files that it includes are not read."""
    found = _options(config.server.option_file)
    return Identity(
        cluster=config.cluster,
        name=config.name,
        flavor=config.server.flavor,
        account=config.replication.user,
        host=found.get("report_host", ""),
        port=_number(found.get("port", "")),
        server_id=_number(found.get("server_id", "")),
    )


def _options(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    group = ""
    for line in path.read_text(errors="replace").splitlines():
        if line.lstrip().startswith("["):
            group = line.strip().strip("[]").lower()
        elif group.startswith(GROUPS) and (match := _LINE.match(line)):
            found[match[1].replace("-", "_")] = match[2]
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0

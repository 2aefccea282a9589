"""How many files a server may open: a server that its agent starts inherits the agent's limit, and then accepts fewer
connections without saying so."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import Finding, Level, ok

KEY = "open-files"


def too_few(server: int, agent: int) -> tuple[str, str] | None:
    """What a running server would lose at its next start, and how to prevent it; None: nothing.

    :param server: how many files it may open; :param agent: the highest limit that the agent can give to a server it
        starts
    """
    if agent >= server:
        return None
    return (
        f"its server may open {server} files, and its agent lets it have {agent}: started again, it would take fewer "
        "connections",
        f"LimitNOFILE={server} in the agent's unit (or ulimit -n), and restart the agent",
    )


def check_limits(facts: Facts) -> Iterator[Finding]:
    if not facts.open_files:
        return
    server, agent = facts.open_files
    wanted, has = (
        facts.boot.options.get("max_connections", ""),
        facts.variables.get("max_connections", ""),
    )
    if found := too_few(server, agent):
        text, mend = found
        yield Finding(KEY, Level.WARNING, text, mend)
    elif wanted.isdigit() and has.isdigit() and int(has) < int(wanted):
        text = (
            f"it takes {has} connections, and {facts.boot.source('max_connections')} says {wanted}"
        )
        mend = f"it may open {server} files: LimitNOFILE in the agent's unit, restart the agent, then the server"
        yield Finding(KEY, Level.WARNING, text, mend)
    else:
        yield ok(KEY, f"{server}")

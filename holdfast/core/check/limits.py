"""How many files a server may open: one that its agent starts inherits that, and takes fewer connections quietly."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import Finding, Level, ok

KEY = "open-files"


def too_few(server: int, agent: int) -> tuple[str, str] | None:
    """What the next start would take from a server that runs, and what mends that; None: nothing.

    :param server: so many files it may open; :param agent: the most that what its agent starts may have
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

"""An overview of a lab: each host, what runs there, and its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.local.servers import server_of


def rows(lab: Lab) -> list[dict[str, Any]]:
    """For each host: ``host``, ``address``, ``processes`` (pid by kind), ``faults`` (sentences)."""
    return [
        {
            "host": host,
            "address": lab.address(host),
            "processes": lab.processes(host),
            "faults": _faults(lab, host),
        }
        for host in lab.hosts()
    ]


def _faults(lab: Lab, host: str) -> list[str]:
    found = ["off"] if lab.is_off(host) else []
    if lab.frozen(host):
        found.append("frozen")
    if ahead := lab.clock_ahead(host):
        found.append(f"clock {ahead:+g} s")
    if host in [member.name for member in lab.members()]:
        if (agent := lab.processes(host).get("agent")) and _stopped(agent) and not lab.frozen(host):
            found.append("agent hangs")
        server = server_of(lab.plan.member(host))
        if server is not None and _stopped(server.pid) and not lab.frozen(host):
            found.append("server frozen")
        if lab.disk_is_full(host):
            found.append("disk full")
        if host in lab.stalled():
            found.append("disk stalls")
    by_text: dict[str, list[str]] = {}
    for (source, target), link in lab.links().items():
        if source == host:
            by_text.setdefault(str(link), []).append(target)
    others = len(lab.hosts()) - 1
    for text, targets in by_text.items():
        found.append(f"to {'all' if len(targets) == others else ', '.join(targets)}: {text}")
    return found


def _stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state == "T"

"""HAProxy in a sandbox: runs where it is installed, so that there is one address for writes and one for reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.config.endpoints import HaproxyConfig
from holdfast.endpoint.haproxy_file import HaproxyTarget, render
from holdfast.errors import BadInput
from holdfast.sandbox.local.spec import CLUSTER, HOST, MemberSpec, Spec
from holdfast.sandbox.servers import trees

HAPROXY = "haproxy"


def command(spec: Spec) -> list[str]:
    """Its command line, in the foreground.

    :raises BadInput: it is not installed
    """
    return [*trees.companion("haproxy"), "-db", "-f", str(spec.haproxy_config)]


def targets(members: Sequence[MemberSpec]) -> list[HaproxyTarget]:
    """Members as HAProxy reaches them."""
    return [
        HaproxyTarget(each.name, each.host, each.port, f"{each.host}:{each.checks_port}")
        for each in members
    ]


def prepare(spec: Spec) -> dict[str, Any]:
    """Write its file, and return the part of the manager's file on it; nothing where it is not installed.

    The file has all members that there can be, those that are not made yet are down: one more needs no other file, and
    so no restart, which would end all sessions.
    """
    try:
        command(spec)
    except BadInput:
        spec.haproxy_config.unlink(missing_ok=True)
        return {}
    found = targets(spec.places)
    said = {
        "name": HAPROXY,
        "socket": str(spec.haproxy_socket),
        "write": f"{HOST}:{spec.write_port}",
        "read": f"{HOST}:{spec.read_port}",
    }
    spec.haproxy_config.write_text(render(CLUSTER, found, HaproxyConfig.model_validate(said)))
    checks = {each.name: each.checks for each in found[: spec.size]}
    return {"endpoints": {"checks": checks, "haproxy": [said]}}

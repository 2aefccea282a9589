"""The files of a lab: configurations, passwords, and what is on the members' disks."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from holdfast.config.endpoints import HaproxyConfig
from holdfast.config.settings import nested
from holdfast.endpoint.haproxy_file import render
from holdfast.sandbox.lab.disks import Disks
from holdfast.sandbox.lab.plan import (
    ETCD_PORT,
    HAPROXY,
    MANAGER_PORT,
    PREFIX_BITS,
    READ_PORT,
    RUNTIME_PORT,
    WRITE_PORT,
    LabPlan,
)
from holdfast.sandbox.local.accounts import Accounts
from holdfast.sandbox.local.files import BEGINS_WITH, member_settings, write_member, write_secret
from holdfast.sandbox.local.haproxy import targets
from holdfast.sandbox.local.spec import CLUSTER, MemberSpec
from holdfast.sandbox.servers import trees
from holdfast.sandbox.servers.template import copy_template, make_template


def write_files(plan: LabPlan, accounts: Accounts, disks: Disks) -> None:
    """Make all files that the daemons need, and mount disks; existing files are rewritten, except data.

    :raises BadInput: there is no server of this flavor
    :raises Refused: a disk or a data directory could not be made
    """
    tree = trees.find(plan.flavor.value, plan.binary)
    for folder in (plan.sockets, plan.dir / "logs", *(plan.dir / each for each in plan.managers)):
        folder.mkdir(mode=0o700, exist_ok=True)
    for node in plan.etcds:
        plan.etcd_data(node).mkdir(mode=0o700, parents=True, exist_ok=True)
    if not plan.token_file.exists():
        write_secret(plan.token_file, secrets.token_hex(24))
    write_secret(plan.dir / "app.password", accounts.app.password)
    for name in plan.managers:
        text = yaml.safe_dump(manager_settings(plan, name), sort_keys=False)
        plan.manager_config(name).write_text(text)
    if plan.haproxy:
        plan.haproxy_config.parent.mkdir(mode=0o700, exist_ok=True)
        said = HaproxyConfig.model_validate(haproxy_settings(plan))
        plan.haproxy_config.write_text(render(CLUSTER, targets(plan.members), said))
    template = make_template(tree, accounts.statements(tree.flavor))

    def furnish(member: MemberSpec) -> None:
        disks.make(member.name)
        write_member(plan, member, tree, accounts, agent_extras(plan))
        if not member.datadir.exists():
            copy_template(template, member.datadir)
        disks.flush(member.name)

    with ThreadPoolExecutor(len(plan.members)) as pool:
        list(pool.map(furnish, plan.members))


def agent_extras(plan: LabPlan) -> dict[str, Any]:
    """Keys that an agent's file has only in a lab."""
    found: dict[str, Any] = {"insecure_token": True}
    if plan.gate:
        found["lease"] = {"gate": "nftables", "nft_command": list(trees.companion("nft"))}
    if plan.vip:
        found["vip"] = {"address": f"{plan.vip_address}/{PREFIX_BITS}", "interface": "eth0"}
    return found


def manager_settings(plan: LabPlan, name: str) -> dict[str, Any]:
    """The content of a manager's ``manager.yaml``."""
    listen = f"{plan.address(name)}:{MANAGER_PORT}"
    endpoints = [f"http://{plan.address(node)}:{ETCD_PORT}" for node in plan.etcds]
    cluster: dict[str, Any] = {"name": CLUSTER}
    cluster["settings"] = nested(BEGINS_WITH | dict(plan.settings))
    cluster["members"] = [member_settings(member) for member in plan.members]
    if plan.haproxy:
        checks = {each.name: each.checks for each in targets(plan.members)}
        cluster["endpoints"] = {"checks": checks, "haproxy": [haproxy_settings(plan)]}
    return {
        "listen": listen,
        "insecure_token": True,
        "token_file": str(plan.token_file),
        "agent_token_file": str(plan.token_file),
        "name": name,
        "url": f"http://{listen}",
        "store": {"endpoints": endpoints} if endpoints else str(plan.dir / name / "store.db"),
        "clusters": [cluster],
    }


def haproxy_settings(plan: LabPlan) -> dict[str, Any]:
    """The part of a manager's file on HAProxy."""
    return {
        "name": HAPROXY,
        "socket": f"{plan.address(HAPROXY)}:{RUNTIME_PORT}",
        "write": f"*:{WRITE_PORT}",
        "read": f"*:{READ_PORT}",
    }

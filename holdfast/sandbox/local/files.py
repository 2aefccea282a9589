"""Writes the files of a sandbox: data directories, option files, configurations, passwords."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import yaml

from holdfast.config.settings import nested
from holdfast.core.gtid import Flavor
from holdfast.sandbox.local import haproxy
from holdfast.sandbox.local.accounts import Accounts
from holdfast.sandbox.local.spec import CLUSTER, HOST, MemberSpec, Spec
from holdfast.sandbox.servers.frugal import frugal
from holdfast.sandbox.servers.template import copy_template, make_template
from holdfast.sandbox.servers.trees import ServerTree
from holdfast.server.base import Account
from holdfast.server.process import optionfile
from holdfast.server.process.optionfile import BINLOG, Value

BEGINS_WITH = {"failovers_per_hour": 0}
"""A sandbox is broken on purpose, again and again."""


class Premises(Protocol):
    """What a member's files need to know of the whole."""

    @property
    def flavor(self) -> Flavor: ...
    @property
    def token_file(self) -> Path: ...


def write_files(spec: Spec, tree: ServerTree, accounts: Accounts) -> None:
    """Make all files that the daemons need; existing files are rewritten, except data.

    :raises Refused: a data directory could not be made
    """
    spec.sockets.mkdir(mode=0o700, exist_ok=True)
    if not spec.token_file.exists():
        write_secret(spec.token_file, secrets.token_hex(24))
    write_secret(spec.dir / "app.password", accounts.app.password)
    spec.manager_config.write_text(yaml.safe_dump(manager_settings(spec), sort_keys=False))
    for member in spec.members:
        write_member(spec, member, tree, accounts)
    empty = [member for member in spec.members if not member.datadir.exists()]
    if empty:
        template = make_template(tree, accounts.statements(tree.flavor))
        with ThreadPoolExecutor(len(empty)) as pool:
            list(pool.map(lambda member: copy_template(template, member.datadir), empty))


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text + "\n")


def write_member(
    spec: Premises,
    member: MemberSpec,
    tree: ServerTree,
    accounts: Accounts,
    further: Mapping[str, Any] | None = None,
) -> None:
    """A member's files, except its data directory.

    :param further: additional keys of its agent's file
    """
    for folder in (member.folder, member.state_dir, member.tmpdir):
        folder.mkdir(mode=0o700, exist_ok=True)
    own = accounts.replication(member.name)
    write_secret(member.folder / "admin.password", accounts.admin.password)
    write_secret(member.folder / "replication.password", own.password)
    member.option_file.write_text(option_file(spec, member, tree))
    settings = agent_settings(spec, member, tree, accounts.admin, own) | dict(further or {})
    member.agent_config.write_text(yaml.safe_dump(settings, sort_keys=False))


def option_file(spec: Premises, member: MemberSpec, tree: ServerTree) -> str:
    """The text of a member's ``my.cnf``: with it alone, the server's command needs no options."""
    return optionfile.ServerOptions(
        flavor=spec.flavor,
        datadir=member.datadir,
        tmpdir=member.tmpdir,
        socket=member.socket,
        port=member.port,
        server_id=member.number,
        bind_address=member.listens or member.host,
        error_log=member.error_log,
        pid_file=member.folder / "server.pid",
        extra=frugal(spec.flavor) | _tree_options(tree),
    ).render()


def _tree_options(tree: ServerTree) -> dict[str, Value]:
    pairs = (argument.removeprefix("--").partition("=") for argument in tree.arguments)
    return {name.replace("-", "_"): value for name, _, value in pairs}


def agent_settings(
    spec: Premises, member: MemberSpec, tree: ServerTree, admin: Account, replication: Account
) -> dict[str, Any]:
    """The content of ``agent.yaml``."""
    checks = {"checks": f"{member.host}:{member.checks_port}"} if member.checks_port else {}
    return {
        "cluster": CLUSTER,
        "name": member.name,
        "listen": f"{member.host}:{member.agent_port}",
        **checks,
        "token_file": str(spec.token_file),
        "state_dir": str(member.state_dir),
        "server": {
            "flavor": spec.flavor.value,
            "command": list(tree.command),
            "option_file": str(member.option_file),
            "datadir": str(member.datadir),
            "socket": str(member.socket),
            "binlog_index": str(member.datadir / f"{BINLOG}.index"),
            "admin": {
                "user": admin.user,
                "password_file": str(member.folder / "admin.password"),
            },
        },
        "replication": {
            "user": replication.user,
            "password_file": str(member.folder / "replication.password"),
        },
    }


def manager_settings(spec: Spec) -> dict[str, Any]:
    """The content of ``manager.yaml``. Where HAProxy exists, its own file is written too."""
    return {
        "listen": f"{HOST}:{spec.base_port}",
        "token_file": str(spec.token_file),
        "store": str(spec.store),
        "agent_token_file": str(spec.token_file),
        "clusters": [
            {
                "name": CLUSTER,
                "settings": nested(BEGINS_WITH | dict(spec.settings)),
                "members": [member_settings(member) for member in spec.first_members],
                **haproxy.prepare(spec),
            }
        ],
    }


def member_settings(member: MemberSpec) -> dict[str, Any]:
    """The part of a manager's file on a member."""
    return {
        "name": member.name,
        "agent": f"http://{member.host}:{member.agent_port}",
        "host": member.host,
        "port": member.port,
    }

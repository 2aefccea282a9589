"""The server processes of a sandbox: finds them, and ends them without a false answer to a client."""

from __future__ import annotations

import signal
from contextlib import closing

import pymysql
import yaml

from holdfast.agent.clone.scratch_server import end_former
from holdfast.errors import DeadlinePassed
from holdfast.sandbox.local.spec import MemberSpec
from holdfast.server.base import Account
from holdfast.server.connection.login import SafeLogin
from holdfast.server.process.process import Running, ServerProcess

TERM_SECONDS = 20.0
KILL_SECONDS = 10.0


def server_of(member: MemberSpec) -> Running | None:
    """The member's server process, whatever started it."""
    try:
        settings = yaml.safe_load(member.agent_config.read_text())
    except FileNotFoundError:
        return None  # never prepared, so never started
    command = tuple(settings["server"]["command"])
    output = member.folder / "server.out"
    return ServerProcess(command, member.option_file, member.datadir, output).find()


def end_server(member: MemberSpec, admin: Account, gently: bool) -> None:
    """End the member's server.

    Gently is SIGTERM for a read-only server, which flushes what relaxed flushing left in memory. A server that takes
    writes, or does not answer, gets SIGKILL: on SIGTERM it would tell its clients that commits are done which no other
    server has.

    A server in which a killed agent had made a copy is ended, too: it would write to its log without end once its files
    are gone.

    :raises DeadlinePassed: it hangs in the kernel
    """
    end_former(member.datadir)
    server = server_of(member)
    if server is None:
        return
    if gently and is_read_only(member, admin):
        try:
            signal.pidfd_send_signal(server.fd, signal.SIGTERM)
        except ProcessLookupError:
            return
        if server.wait(TERM_SECONDS):
            return
    server.kill()
    if not server.wait(KILL_SECONDS):
        raise DeadlinePassed(f"killing the server of {member.name}", KILL_SECONDS)


def is_read_only(member: MemberSpec, admin: Account) -> bool:
    """Whether the server says so, within a second."""
    try:
        with (
            closing(
                SafeLogin(
                    unix_socket=str(member.socket),
                    user=admin.user,
                    password=admin.password,
                    connect_timeout=1,
                    read_timeout=1,
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT @@global.read_only")
            row = cursor.fetchone()
            return bool(row and row[0])
    except (pymysql.err.MySQLError, OSError):
        return False

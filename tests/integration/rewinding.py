"""A primary and a replica without agents, and the code that rewinds the replica; the test can kill it at any
statement."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.rewind import Rewinding
from holdfast.agent.rewind.settling import Settling
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.commands import Rewind
from holdfast.core.gtid import Flavor, everything, parse
from holdfast.core.view import MemberState
from holdfast.server.base import Deadline
from holdfast.server.connection.admin_session import AdminSession
from holdfast.server.data.rewind import Rewinder
from holdfast.server.data.xa import PreparedTransactions
from tests.integration.servers import ADMIN, BareServer, wait_until

SECONDS = 30.0
DECISIVE = ("INSERT", "COMMIT", "RESET", "SET GLOBAL gtid", "UNLOCK", "DROP")


class Died(Exception):
    """The server was killed where the test wanted it."""


class MortalRewinder(Rewinder):
    """Kills the server after one of the statements that change something for good.

    :ivar statements: those that were run, in order
    :ivar die_behind: number of the statement, counted from 0
    """

    def __init__(self, server: BareServer) -> None:
        super().__init__(server.flavor, server.socket, ADMIN)
        self.server = server
        self.statements: list[str] = []
        self.die_behind = -1

    @contextlib.contextmanager
    def _session(self) -> Iterator[AdminSession]:
        with super()._session() as session:
            plain = session.run

            def run(sql: str, deadline: Deadline, args: Sequence[object] = ()) -> None:
                plain(sql, deadline, args)
                if sql.startswith(DECISIVE):
                    self.statements.append(sql[:60])
                    if len(self.statements) == self.die_behind + 1:
                        self.server.kill()
                        raise Died

            with patch.object(session, "run", run):
                yield session


class Patient:
    """A replica of ``primary`` with what an agent needs to rewind it; the agent can be restarted."""

    def __init__(self, primary: BareServer, server: BareServer, folder: Path) -> None:
        self.primary, self.server = primary, server
        self.folder = folder
        folder.mkdir()
        self.rewinder = MortalRewinder(server)
        self.start_agent()

    def start_agent(self) -> None:
        self.published = PublishedState(MemberState(f"m{self.server.number}", self.server.flavor))
        self.fitness = Fitness(self.folder, self.published)
        index = self.server.datadir / "binlog.index"
        # the watch is asked only for servers that follow another
        self.rewinding = Rewinding(
            self.published,
            cast(ServerRun, None),
            self.rewinder,
            self.fitness,
            Settling(
                self.published,
                self.fitness,
                PreparedTransactions(self.server.flavor, self.server.socket, ADMIN),
                index,
                lambda: False,
            ),
            index,
            self.server.datadir,
            self.folder / "pending",
        )
        self.steps: list[str] = []

    @property
    def command(self) -> Rewind:
        return Rewind("m0", present(self.primary))

    def rewind(self) -> None:
        self.rewinding.rewind(self.command, Deadline(SECONDS), self.steps.append)

    def settle(self) -> None:
        self.rewinding.settle(Deadline(SECONDS), self.steps.append)

    def part(self) -> None:
        with contextlib.suppress(Exception):
            self.server.adapter.stop_receiver(Deadline(SECONDS))
        self.server.sql("STOP REPLICA")
        self.rewinder.leave(Deadline(SECONDS))

    def follow(self) -> None:
        source = self.primary.source(self.server)
        self.server.adapter.follow(source, False, Deadline(SECONDS))

    def catch_up(self) -> None:
        self.follow()
        wait_until(
            lambda: gtids(self.server).contains(gtids(self.primary)),
            20,
            "the replica has everything",
        )

    def errant(self, *statements: str) -> None:
        """Write here by hand; the server stays read-only for all others."""
        self.let_write()
        self.server.sql("USE app", *statements)

    def let_write(self) -> None:
        if self.server.flavor is Flavor.MYSQL:
            self.server.sql("SET GLOBAL super_read_only = 0")

    def texts(self) -> list[str]:
        return [path.read_text() for path in sorted((self.folder / "pending").glob("*.txt"))]


def gtids(server: BareServer) -> Any:
    mysql = server.flavor is Flavor.MYSQL
    text = server.value(f"SELECT @@global.{'gtid_executed' if mysql else 'gtid_binlog_state'}")
    return parse(server.flavor, text)


def present(primary: BareServer) -> str:
    """As ``core.rules.attachment.with_everything_of`` has it."""
    mysql = primary.flavor is Flavor.MYSQL
    issuer = primary.value(f"SELECT @@{'server_uuid' if mysql else 'server_id'}")
    own = parse(primary.flavor, everything(primary.flavor, issuer))
    return str(gtids(primary).union(own))


def content(server: BareServer, *tables: str) -> dict[str, list[str]]:
    return {
        table: sorted(repr(sorted(row.items())) for row in server.sql(f"SELECT * FROM app.{table}"))
        for table in tables
    }

"""A replication cluster as a DBA has set it up by hand: async, one account for all replicas, the DBA's own option
files.

An agent can be started beside each server, and a manager, whose files say how the server is started from then on.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from holdfast.core.gtid import Flavor, parse
from holdfast.errors import HoldfastError
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.load.journal import WriteReport
from holdfast.sandbox.load.locator import WriteTarget
from holdfast.sandbox.load.workload import TABLE, Workload
from holdfast.sandbox.local.files import write_secret
from holdfast.sandbox.local.spec import HOST
from holdfast.sandbox.servers.daemons import Daemon, Spawner, tail
from holdfast.server.base import Account
from holdfast.server.process import optionfile
from holdfast.server.process.process import ServerProcess
from tests.integration.cluster import RATE
from tests.integration.ports import free_base_port
from tests.integration.servers import (
    ADMIN,
    CLIENT,
    BareServer,
    bare_servers,
    wait_until,
)

CLUSTER = "shop"
OLD = Account("old_repl", "old")
"""The one account by which all replicas follow before they are adopted."""


class ClassicServer:
    """A server that a DBA has set up; the agent will start it with ``option_file``."""

    def __init__(self, bare: BareServer, folder: Path) -> None:
        self.bare = bare
        self.name = f"m{bare.number + 1}"
        self.folder = folder
        self.account = Account(f"repl_{self.name}", f"ge'heim %s {self.name}")
        self.option_file = folder / "holdfast.cnf"
        self.agent_config = folder / "agent.yaml"
        self.agent_log = folder / "agent.log"
        self.agent_url = ""

    def write_option_file(self, **extra: str | int) -> None:
        """As the check wants it, with ``extra`` appended: the last value of an option counts."""
        bare = self.bare
        pairs = (word.removeprefix("--").partition("=") for word in bare.tree.arguments)
        text = optionfile.ServerOptions(
            flavor=bare.flavor,
            datadir=bare.datadir,
            tmpdir=self.folder / "tmp",
            socket=bare.socket,
            port=bare.port,
            server_id=bare.number + 1,
            error_log=bare.error_log,
            buffer_pool_mb=64,
            extra={name.replace("-", "_"): value for name, _, value in pairs},
        ).render()
        self.option_file.write_text(text + "".join(f"{k} = {v}\n" for k, v in extra.items()))

    def write_agent_config(self, port: int, token: Path) -> None:
        bare = self.bare
        self.agent_url = f"http://{HOST}:{port}"
        (self.folder / "state").mkdir(mode=0o700)
        write_secret(self.folder / "admin.password", ADMIN.password)
        write_secret(self.folder / "replication.password", self.account.password)
        settings = {
            "cluster": CLUSTER,
            "name": self.name,
            "listen": f"{HOST}:{port}",
            "token_file": str(token),
            "state_dir": str(self.folder / "state"),
            "server": {
                "flavor": bare.flavor.value,
                "command": list(bare.tree.command),
                "option_file": str(self.option_file),
                "datadir": str(bare.datadir),
                "socket": str(bare.socket),
                "binlog_index": str(bare.datadir / "binlog.index"),
                "admin": {
                    "user": ADMIN.user,
                    "password_file": str(self.folder / "admin.password"),
                },
            },
            "replication": {
                "user": self.account.user,
                "password_file": str(self.folder / "replication.password"),
            },
        }
        self.agent_config.write_text(yaml.safe_dump(settings))

    def process(self) -> ServerProcess:
        command = self.bare.tree.command
        return ServerProcess(
            command, self.option_file, self.bare.datadir, self.folder / "server.out"
        )

    def end(self) -> None:
        """Also a server that the agent has started."""
        running = self.process().find()
        if running is not None:
            running.kill_and_wait(10)


class Classic:
    """The first server is primary; the others follow it."""

    def __init__(self, servers: list[ClassicServer], folder: Path) -> None:
        self.servers = servers
        self.folder = folder
        self.token = folder / "token"
        self.manager_config = folder / "manager.yaml"
        self.manager_log = folder / "manager.log"
        base = free_base_port()
        self.manager_url = f"http://{HOST}:{base}"
        write_secret(self.token, secrets.token_hex(16))
        for number, server in enumerate(servers, 1):
            server.write_option_file()
            server.write_agent_config(base + number, self.token)
        members = [
            {"name": s.name, "agent": s.agent_url, "host": HOST, "port": s.bare.port}
            for s in servers
        ]
        self.manager_config.write_text(
            yaml.safe_dump(
                {
                    "listen": f"{HOST}:{base}",
                    "token_file": str(self.token),
                    "agent_token_file": str(self.token),
                    "store": str(folder / "store.db"),
                    "clusters": [{"name": CLUSTER, "members": members}],
                }
            )
        )
        self.client = ManagerClient(self.manager_url, self.token.read_text().strip())
        self._spawner = Spawner()
        self._daemons: list[Daemon] = []
        self._manager: Daemon | None = None

    @property
    def primary(self) -> BareServer:
        return self.servers[0].bare

    @property
    def arguments(self) -> list[str]:
        """Options by which the command line finds the manager."""
        return ["--manager", self.manager_url, "--token-file", str(self.token)]

    def replicate(self) -> None:
        """With GTIDs, by one account, which each server has before: a semi-sync primary without replicas would wait for
        its time-out.
        """
        for server in self.servers:
            server.bare.sql(
                "SET SESSION sql_log_bin = 0",
                f"CREATE USER '{OLD.user}'@'%' IDENTIFIED BY '{OLD.password}'",
                f"GRANT REPLICATION SLAVE ON *.* TO '{OLD.user}'@'%'",
            )
        for server in self.servers[1:]:
            follow(server.bare, self.primary)
        self.primary.sql(TABLE)
        self.wait_level()

    def start_daemons(self) -> None:
        for server in self.servers:
            self._spawn("agent", server.agent_config, server.agent_log)
        self.start_manager()

    def start_manager(self) -> None:
        self._manager = self._spawn("manager", self.manager_config, self.manager_log)
        try:
            wait_until(self._answers, 20, "manager and agents answer")
        except AssertionError:
            raise AssertionError(self.logs()) from None

    def kill_manager(self) -> None:
        assert self._manager is not None
        self._manager.end(0)
        self._spawner.bury()

    def _spawn(self, kind: str, config: Path, log: Path) -> Daemon:
        self._daemons.append(self._spawner.start(kind, config, log))
        return self._daemons[-1]

    def _answers(self) -> bool:
        try:
            members = self.client.status(CLUSTER)["members"]
        except HoldfastError:
            return False
        return all(member["state"] != "unknown" for member in members)

    @contextmanager
    def writing(self, writers: int = 4, rate: float | None = RATE) -> Iterator[Workload]:
        """Writers at work, which find the primary by themselves."""
        targets = tuple(WriteTarget(s.name, HOST, s.bare.port) for s in self.servers)
        workload = Workload(targets, CLIENT, writers, rate)
        workload.start()
        try:
            wait_until(lambda: workload.acknowledged() > 20 * writers, 20, "writes")
            yield workload
        finally:
            workload.stop()

    def wait_whole(self, seconds: float = 60) -> dict[str, Any]:
        try:
            wait_until(lambda: bool(self.status()["whole"]), seconds, "the cluster is whole")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status()}\n{self.logs()}") from None
        return self.status()

    def status(self) -> dict[str, Any]:
        return self.client.status(CLUSTER)

    def wait_level(self) -> None:
        """Wait until every server has applied the same."""
        column = (
            "@@global.gtid_executed"
            if self.primary.flavor is Flavor.MYSQL
            else "@@global.gtid_binlog_state"
        )

        def level() -> bool:
            sets = [
                parse(self.primary.flavor, str(s.bare.value(f"SELECT {column}")).replace("\n", ""))
                for s in self.servers
            ]
            return all(each == sets[0] for each in sets)

        wait_until(level, 30, "all servers have applied the same")

    def check(self, report: WriteReport) -> None:
        """Every acknowledged write is on every server, and their tables are the same. No client may be writing."""
        self.wait_level()
        told = set(report.acknowledged_rows())
        assert told
        sums = set()
        for server in self.servers:
            rows = server.bare.sql(f"SELECT writer, n FROM app.writes WHERE run = {report.run}")
            lost = told - {(row["writer"], row["n"]) for row in rows}
            assert not lost, f"{server.name} lacks {sorted(lost)[:20]}"
            checksums = server.bare.sql("CHECKSUM TABLE app.writes EXTENDED")
            sums.add(checksums[0]["Checksum"])
        assert len(sums) == 1

    def logs(self) -> str:
        logs = [self.manager_log, *(server.agent_log for server in self.servers)]
        return "\n".join(f"{log}:\n{tail(log, 12)}" for log in logs)

    def end(self) -> None:
        self.client.close()
        for daemon in self._daemons:
            daemon.end(0)
        self._spawner.bury()
        for server in self.servers:
            server.end()


def follow(replica: BareServer, source: BareServer, gtid: bool = True) -> None:
    if replica.flavor is Flavor.MYSQL:
        auto = f", SOURCE_AUTO_POSITION = {int(gtid)}"
        replica.sql(
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'localhost', SOURCE_PORT = {source.port}, "
            f"SOURCE_USER = '{OLD.user}', SOURCE_PASSWORD = '{OLD.password}', SOURCE_SSL = 1{auto}",
            "START REPLICA",
        )
    else:
        use = "slave_pos" if gtid else "no"
        replica.sql(
            f"CHANGE MASTER TO master_host = '127.0.0.1', master_port = {source.port}, "
            f"master_user = '{OLD.user}', master_password = '{OLD.password}', master_use_gtid = {use}",
            "START SLAVE",
        )


def own_options(bare: BareServer, primary: bool) -> str:
    """The DBA's own option file: right in what adopting cannot set, default in everything else."""
    common: dict[str, str | int] = {
        "datadir": str(bare.datadir),
        "socket": str(bare.socket),
        "port": bare.port,
        "bind_address": HOST,
        "server_id": bare.number + 1,
        "log_error": str(bare.error_log),
        "tmpdir": str(bare.datadir.parent / "tmp"),
        "log_bin": "binlog",
        "binlog_format": "ROW",
        "innodb_buffer_pool_size": "64M",
        "read_only": "OFF" if primary else "ON",
        "sync_binlog": 0,
        "innodb_flush_log_at_trx_commit": 2,
    }
    own: Mapping[str, str | int] = (
        {"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "mysqlx": "OFF"}
        if bare.flavor is Flavor.MYSQL
        else {"gtid_strict_mode": "ON", "log_slave_updates": "ON", "performance_schema": "OFF"}
    )
    lines = [f"{name} = {value}" for name, value in {**common, **own}.items()]
    return "\n".join(["[mysqld]", *lines, ""])


@contextmanager
def classic(
    flavor: Flavor, count: int = 3, extra: Mapping[int, Mapping[str, str | int]] | None = None
) -> Iterator[Classic]:
    """A cluster that replicates; no agents yet.

    :param extra: options of single servers, by their number from 0, as they run
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def prepare(bare: BareServer) -> None:
            text = own_options(bare, primary=bare.number == 0)
            more = (extra or {}).get(bare.number, {})
            bare.option_file.write_text(text + "".join(f"{k} = {v}\n" for k, v in more.items()))

        bares = stack.enter_context(bare_servers(flavor, count, prepare=prepare))
        servers = []
        for bare in bares:
            own = folder / f"m{bare.number + 1}"
            (own / "tmp").mkdir(parents=True)
            servers.append(ClassicServer(bare, own))
        made = Classic(servers, folder)
        stack.callback(made.end)
        made.replicate()
        yield made

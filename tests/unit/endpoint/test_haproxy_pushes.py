"""What is pushed to HAProxy, and its file; how HAProxy treats both is tested with a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.config.endpoints import EndpointsConfig, HaproxyConfig
from holdfast.core.answers.routing import Directions, Reader
from holdfast.core.cluster import Member
from holdfast.endpoint.haproxy import GRACE_SECONDS, Haproxy, writes
from holdfast.endpoint.haproxy_file import HaproxyTarget, render
from holdfast.endpoint.runtime import RuntimeApi
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused, Unreachable
from tests.unit.hand_clock import HandClock

MEMBERS = tuple(
    Member(f"m{n}", "127.0.0.1", 3300 + n, f"http://127.0.0.1:{7400 + n}") for n in (1, 2, 3)
)
TARGETS = [HaproxyTarget(m.name, m.host, m.port, f"127.0.0.1:{m.port + 100}") for m in MEMBERS]


def directions(primary: str = "", **lags: float | None) -> Directions:
    by_name = {member.name: member for member in MEMBERS}
    readers = tuple(Reader(by_name[name], lag) for name, lag in lags.items())
    return Directions("c", 1, by_name.get(primary), readers, MEMBERS)


class FakeHaproxy:
    """The runtime API, and the commands that it got.

    :ivar unknown: servers that it does not have
    :ivar worker: the present one; a reload makes another, and each connection stays with its own
    :ivar clients: of workers that take no new ones
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []
        self.unknown: set[str] = set()
        self.mute = False
        self.connections = 0
        self.worker = 1
        self.clients = 0
        self.told: list[tuple[int, str]] = []
        self.ended: list[int] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._talk, self.path)

    async def end(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self.path.unlink()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        worker = self.worker
        try:
            while line := (await reader.readline()).decode().strip():
                if self.mute:
                    continue
                answer = ""
                if line == "show info":
                    stopping = worker != self.worker
                    answer = f"CurrConns: {self.clients}\nStopping: {stopping:d}\n"
                elif line != "prompt":
                    self.asked.append(line)
                    self.told.append((worker, line))
                    if self.unknown & set(line.split()):
                        answer = "No such server.\n"
                    if line.startswith("fail"):
                        answer = "Permission denied\n"
                writer.write(f"{answer}\n> ".encode())
        except ConnectionError:
            pass
        writer.transport.abort()
        self.ended.append(worker)


@asynccontextmanager
async def fake(folder: Path) -> AsyncIterator[FakeHaproxy]:
    made = FakeHaproxy(folder / "s")
    await made.start()
    try:
        yield made
    finally:
        await made.end()


def pushed(asked: list[str], use: str) -> list[str]:
    return [each for each in asked if f"c_{use}/" in each]


class TestWrites:
    def test_no_two_servers_are_up_at_any_moment(self) -> None:
        for before in ("m1", "m2", ""):
            up = {f"c_write/{before}"} if before else set()
            for push in writes(directions("m2")):
                words = push.command.split()
                if words[-1] == "up":
                    up.add(words[2])
                elif words[-1] == "down":
                    up.discard(words[2])
                assert len(up) <= 1
            assert up == {"c_write/m2"}

    def test_sessions_end_where_writes_end_and_nowhere_else(self) -> None:
        cut = [each.server for each in writes(directions("m2")) if "shutdown" in each.command]
        assert cut == ["c_write/m1", "c_write/m3"]

    def test_while_nobody_takes_writes_nobody_is_up_and_all_sessions_end(self) -> None:
        commands = [each.command for each in writes(directions())]
        assert commands == [
            *(f"set server c_write/{name} health down" for name in ("m1", "m2", "m3")),
            *(f"shutdown sessions server c_write/{name}" for name in ("m1", "m2", "m3")),
        ]


class TestReads:
    def asked(self, folder: Path, *shown: tuple[float, Directions]) -> list[list[str]]:
        """The commands for the readers, at each of these moments."""
        now = 0.0
        found = []

        async def scenario() -> None:
            nonlocal now
            async with fake(folder) as haproxy:
                endpoint = Haproxy(HaproxyConfig(socket=str(haproxy.path)), HandClock(lambda: now))
                for at, wanted in shown:
                    now = at
                    haproxy.asked.clear()
                    await endpoint.show(wanted)
                    found.append(pushed(haproxy.asked, "read"))
                await endpoint.close()

        asyncio.run(scenario())
        return found

    def test_only_replicas_that_are_young_enough_are_read(self, tmp_path: Path) -> None:
        _, later = self.asked(
            tmp_path,
            (0.0, directions("m1", m2=0.0, m3=9.0)),
            (GRACE_SECONDS, directions("m1", m2=2.0, m3=None)),
        )
        assert later == [
            "set server c_read/m1 health down",
            "shutdown sessions server c_read/m1",
            "set server c_read/m2 health up",
            "set server c_read/m3 health down",
            "shutdown sessions server c_read/m3",
        ]

    def test_a_replica_that_changes_its_source_keeps_its_readers(self, tmp_path: Path) -> None:
        _, during, after, late = self.asked(
            tmp_path,
            (10.0, directions("m1", m2=0.0)),
            (10.2, directions("m1")),
            (10.4, directions("m1", m2=0.0)),
            (10.4 + GRACE_SECONDS, directions("m1")),
        )
        assert not [each for each in during if "m2" in each]
        assert "set server c_read/m2 health up" in after
        assert "set server c_read/m2 health down" in late


class TestApi:
    def test_one_connection_is_kept_and_made_anew_after_a_restart(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with fake(tmp_path) as haproxy:
                endpoint = Haproxy(HaproxyConfig(socket=str(haproxy.path)))
                await endpoint.show(directions("m1"))
                await endpoint.show(directions("m1"))
                assert haproxy.connections == 1
                await haproxy.end()
                with pytest.raises(Unreachable, match="No such file"):
                    await endpoint.show(directions("m1"))
                await haproxy.start()
                haproxy.asked.clear()
                await endpoint.show(directions("m2"))
                assert haproxy.connections == 2
                assert "set server c_write/m2 health up" in haproxy.asked
                await endpoint.close()

        asyncio.run(scenario())

    def test_a_restart_that_nobody_noticed_costs_no_failure(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with fake(tmp_path) as haproxy:
                endpoint = Haproxy(HaproxyConfig(socket=str(haproxy.path)))
                await endpoint.show(directions("m1"))
                await haproxy.end()
                await haproxy.start()
                await endpoint.show(directions("m2"))
                await endpoint.close()

        asyncio.run(scenario())

    def test_one_that_does_not_answer_is_given_up(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with fake(tmp_path) as haproxy:
                api = RuntimeApi(str(haproxy.path))
                await api.ask(["show stat"])
                haproxy.mute = True
                with pytest.raises(DeadlinePassed):
                    await api.ask(["show stat"], 0.05)
                haproxy.mute = False
                assert await api.ask(["fail", "show stat"]) == ["Permission denied", ""]
                api.close()

        asyncio.run(scenario())

    def test_an_answer_that_was_called_off_is_not_taken_for_the_next(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with fake(tmp_path) as haproxy:
                api = RuntimeApi(str(haproxy.path))
                haproxy.mute = True
                task = asyncio.create_task(api.ask(["fail"]))
                while not haproxy.connections:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                haproxy.mute = False
                assert await api.ask(["show stat"]) == [""]
                api.close()

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        ("unknown", "fails"), [("c_write/m2", True), ("c_write/m3", False), ("c_read/m3", False)]
    )
    def test_members_that_it_does_not_know(self, tmp_path: Path, unknown: str, fails: bool) -> None:
        """Only the primary must be known: a member that was added lately is in no file yet."""

        async def scenario() -> None:
            async with fake(tmp_path) as haproxy:
                haproxy.unknown = {unknown}
                endpoint = Haproxy(HaproxyConfig(socket=str(haproxy.path)))
                try:
                    if fails:
                        with pytest.raises(
                            Refused, match=f"no server {unknown}: generate its file"
                        ):
                            await endpoint.show(directions("m2", m3=0.0))
                    else:
                        await endpoint.show(directions("m2", m3=0.0))
                finally:
                    await endpoint.close()

        asyncio.run(scenario())


class TestFile:
    @pytest.fixture
    def written(self, tmp_path: Path) -> Callable[..., str]:
        def write(**endpoints: object) -> str:
            members = [
                {"name": m.name, "agent": m.agent, "host": m.host, "port": m.port} for m in MEMBERS
            ]
            cluster = {"name": "c", "members": members, "endpoints": endpoints}
            text = yaml.safe_dump(
                {
                    "listen": "127.0.0.1:7400",
                    "token_file": "token",
                    "store": str(tmp_path / "s.db"),
                    "clusters": [cluster],
                }
            )
            path = tmp_path / "manager.yaml"
            path.write_text(text)
            return str(path)

        return write

    def printed(self, path: str, *options: str) -> str:
        done = CliRunner().invoke(app, ["endpoint", "haproxy", "--config", path, *options])
        if isinstance(done.exception, HoldfastError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    def test_the_command_prints_it(self, written: Callable[..., str]) -> None:
        one = {
            "socket": "/run/haproxy/c.sock",
            "write": "*:3306",
            "read": "10.0.0.9:3307",
            "wait": "3s",
        }
        text = self.printed(written(checks_port=7300, checks={"m3": "10.0.0.3:99"}, haproxy=[one]))
        assert "stats socket /run/haproxy/c.sock mode 660 level admin" in text
        assert "bind *:3306" in text
        assert "bind 10.0.0.9:3307" in text
        assert "timeout queue 3000ms" in text
        assert (
            text.count("server m1 127.0.0.1:3301 maxconn 100000 check addr 127.0.0.1 port 7300")
            == 2
        )
        assert (
            text.count("server m3 127.0.0.1:3303 maxconn 100000 check addr 10.0.0.3 port 99") == 2
        )

    @pytest.mark.parametrize(
        ("endpoints", "options", "says"),
        [
            ({}, (), "endpoints.haproxy: cluster c has none"),
            ({"haproxy": [{"socket": "/s"}]}, (), "endpoints.checks_port: set the port"),
            (
                {"haproxy": [{"socket": "/s"}], "checks_port": 1},
                (),
                "set the address for connections",
            ),
            ({"haproxy": [{"socket": "/s"}]}, ("--cluster", "d"), "--cluster: there is no d"),
            (
                {"haproxy": [{"socket": "/s"}, {"socket": "/t"}]},
                (),
                "--name: is needed: c has /s, /t",
            ),
            ({"haproxy": [{"socket": "/s"}, {"socket": "/s"}]}, (), "'/s' is there twice"),
            ({"haproxy": [{"socket": "s"}]}, (), "must be HOST:PORT"),
            ({"haproxy": [{"socket": "*:99"}]}, (), "must name a host"),
            ({"haproxy": [{"socket": "/s", "write": "3306"}]}, (), "must be HOST:PORT"),
            ({"checks": {"m9": "h:1"}}, (), "endpoints.checks: there is no member 'm9'"),
        ],
    )
    def test_what_is_missing_or_wrong_is_named(
        self,
        written: Callable[..., str],
        endpoints: dict[str, object],
        options: tuple[str, ...],
        says: str,
    ) -> None:
        with pytest.raises(BadInput, match=says.replace("*", r"\*")):
            self.printed(written(**endpoints), *options)

    def test_the_same_settings_give_the_same_file(self) -> None:
        config = HaproxyConfig(socket="127.0.0.1:9999", write="*:3306")
        assert render("c", TARGETS, config) == render("c", TARGETS, config)
        assert "stats socket ipv4@127.0.0.1:9999 level admin" in render("c", TARGETS, config)
        assert "c_read" not in render("c", TARGETS, config)

    def test_a_cluster_may_have_several(self) -> None:
        found = EndpointsConfig.model_validate({"haproxy": [{"socket": "/a"}, {"socket": "h:1"}]})
        assert [each.called for each in found.haproxy] == ["/a", "h:1"]


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.001)


def test_after_a_reload_the_new_worker_is_told_and_the_former_until_its_clients_are_gone(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with fake(tmp_path) as haproxy:
            api = RuntimeApi(str(haproxy.path))
            await api.ask(["one"])
            haproxy.worker, haproxy.clients = 2, 5
            await api.ask(["two"])
            assert {(1, "two"), (2, "two")} <= set(haproxy.told)
            await api.ask(["three"])
            assert {(1, "three"), (2, "three")} <= set(haproxy.told)
            assert haproxy.ended == []
            haproxy.clients = 0
            await api.ask(["four"])
            await api.ask(["five"])
            assert {(1, "four"), (2, "four"), (2, "five")} <= set(haproxy.told)
            assert (1, "five") not in haproxy.told
            # no connection of this process keeps it from ending
            await until(lambda: haproxy.ended == [1])
            assert haproxy.connections == 2
            api.close()
            await until(lambda: haproxy.ended == [1, 2])

    asyncio.run(scenario())

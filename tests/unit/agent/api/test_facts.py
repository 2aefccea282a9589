"""What an agent reports of its host, over HTTP: only to clients with the token, and never a password."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from holdfast.core.commands import EnsureAccount, Equip, Start
from holdfast.core.gtid import Flavor
from holdfast.http.wire import AccountReply, CommandRequest, FactsReply, ReachReply
from holdfast.server.authentication import authentication_string
from tests.unit.agent_world import World

PATHS = ["/v1/facts", "/v1/account"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, token="s3cret")
    yield made
    made.end()


def ask(world: World, path: str) -> httpx.Response:
    return world.http.get(path, headers={"Authorization": "Bearer s3cret"})


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_told(world: World, path: str) -> None:
    assert world.http.get(path).status_code == 401


def test_the_account_comes_without_its_password(world: World) -> None:
    answer = ask(world, "/v1/account")
    account = AccountReply.model_validate_json(answer.content)
    assert account.user == "holdfast"
    assert account.authentication == authentication_string(Flavor.MARIADB, "secret")
    assert "secret" not in answer.text
    assert account.authentication not in repr(account)


def test_facts_of_a_server_that_is_down_are_those_of_its_files(world: World) -> None:
    reply = FactsReply.model_validate_json(ask(world, "/v1/facts").content)
    assert reply.facts.member == "a"
    assert reply.facts.problem
    assert reply.facts.boot.file.endswith("my.cnf")
    assert reply.facts.spaces


def reach(world: World, host: str, port: int) -> str:
    """Returns the error."""
    headers = {"Authorization": "Bearer s3cret"}
    answer = world.http.post("/v1/reach", json={"host": host, "port": port}, headers=headers)
    assert answer.status_code == 200, answer.text
    return ReachReply.model_validate_json(answer.content).error


def follow(world: World, source: str) -> None:
    now = world.server.now
    world.server.now = replace(now, replication=replace(now.replication, source=source))
    headers = {"Authorization": "Bearer s3cret"}
    body = CommandRequest.of(1, Start()).model_dump_json()
    assert world.http.post("/v1/command", content=body, headers=headers).json()["error"] == ""


def test_its_password_is_tried_at_no_address_but_its_sources(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        port = elsewhere.getsockname()[1]
        elsewhere.settimeout(0)
        assert "does not try its password at 127.0.0.1" in reach(world, "127.0.0.1", port)
        follow(world, "127.0.0.1:9")
        assert "its server has to do with 127.0.0.1:9" in reach(world, "127.0.0.1", port)
        assert "does not try its password" in reach(world, "127.0.0.2", 9)
        assert "does not try its password" in reach(world, "127.0.0.1:9@x", 9)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_where_nobody_listens_nobody_is_reached(world: World) -> None:
    follow(world, "127.0.0.1:9")
    for host in ("127.0.0.1", "localhost"):
        assert f"{host}:9 refuses the login of holdfast" in reach(world, host, 9)
    headers = {"Authorization": "Bearer s3cret"}
    answer = world.http.post("/v1/reach", json={"host": "x", "port": 0}, headers=headers)
    assert answer.status_code == 400


def test_a_server_that_is_down_is_neither_equipped_nor_given_accounts(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        assert world.command(0, Equip()).error == "Refused"
        made = world.command(0, EnsureAccount("u", "*x"))
        assert made.error == "Refused"
        assert "*x" not in repr(EnsureAccount("u", "*x"))
    finally:
        world.end()

"""A server whose socket file was removed is found through the kernel; a password is read again."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from holdfast.config.load import account
from holdfast.config.schema import AccountConfig
from holdfast.server.base import Account, Deadline, NotListening, SocketGone
from holdfast.server.connection.sql import Connection
from holdfast.server.connection.ways_in import listens, loopback


def local(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def tcp(host: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    made = socket.socket(family)
    made.bind((host, 0))
    made.listen()
    return made


def test_whoever_listens_at_a_removed_socket_is_found_and_where_else_it_does(
    tmp_path: Path,
) -> None:
    path = tmp_path / "server.sock"
    assert not listens(path)
    with local(path), tcp("127.0.0.1") as near, tcp("") as anywhere, tcp("127.0.0.2") as other:
        path.unlink()
        assert listens(path)
        assert not listens(tmp_path / "server")
        found = loopback(path)
        for each in (near, anywhere):
            assert ("127.0.0.1", each.getsockname()[1]) in found
        assert other.getsockname()[1] not in [port for _, port in found]
    assert not listens(path)
    assert loopback(path) == []


def test_a_socket_that_was_removed_is_told_from_one_at_which_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    session = Connection(path, Account("holdfast", "secret"))
    with pytest.raises(NotListening):
        session.look("SELECT 1", Deadline(0.5))
    with local(path):
        path.unlink()
        with pytest.raises(SocketGone, match=r"error 2002: its socket .*server\.sock was removed"):
            session.look("SELECT 1", Deadline(0.5))


def test_a_password_is_as_its_file_has_it_and_as_before_where_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    config = AccountConfig(user="holdfast", password_file=file)
    known = account(config, "server.admin.password_file")
    assert known.fresh() == known
    file.write_text("new\n")
    assert known.fresh() == Account("holdfast", "new")
    assert "new" not in repr(known.fresh())
    file.unlink()
    assert known.fresh() == known
    assert Account("holdfast", "old").fresh() == known

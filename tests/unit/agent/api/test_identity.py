"""A member's identity, as its server would read its option file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.agent.api.identity import identity
from tests.unit.agent_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def told(world: World, text: str) -> tuple[str, int, int]:
    world.config.server.option_file.write_text(text)
    found = identity(world.config)
    assert (found.cluster, found.name, found.account) == ("c", "a", "holdfast")
    return found.host, found.port, found.server_id


def test_what_its_option_file_says(world: World) -> None:
    text = "[client]\nport = 1\n[mariadb]\nport = 3307 # of old\nserver-id=7\nreport-host = 'db1'\n"
    assert told(world, text) == ("db1", 3307, 7)


def test_what_it_does_not_say_stays_open(world: World) -> None:
    assert told(world, "[mysqld]\nskip-name-resolve\n") == ("", 0, 0)


def test_files_that_it_includes_count(world: World, tmp_path: Path) -> None:
    more = tmp_path / "more.cnf"
    more.write_text("[mysqld]\nserver_id = 8\n")
    assert told(world, f"[mysqld]\nport = 3308\n!include {more}\n") == ("", 3308, 8)


def test_another_programs_groups_do_not(world: World) -> None:
    assert told(world, "[mysqld_safe]\nport = 3309\n") == ("", 0, 0)

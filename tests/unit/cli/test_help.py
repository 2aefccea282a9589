"""What ``--help`` says: of every command, option and argument, and readable as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import click
import pytest
import typer
from typer.testing import CliRunner

from holdfast.cli.main import app


def commands(
    found: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, found
    for name, each in getattr(found, "commands", {}).items():
        yield from commands(each, (*path, name))


ALL = dict(commands(cast("click.Command", typer.main.get_command(app))))


def test_every_command_option_and_argument_says_what_it_is() -> None:
    assert [path for path, command in ALL.items() if not command.help] == []
    texts = {
        (*path, parameter.name): getattr(parameter, "help", "") or ""
        for path, command in ALL.items()
        for parameter in command.params
    }
    assert [each for each, text in texts.items() if not text or text.startswith("[")] == []


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_help_shows_all_that_is_written(path: tuple[str, ...]) -> None:
    """Brackets once were taken for styles, and left out."""
    shown = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "500", "TERMINAL_WIDTH": "500"})
    assert shown.exit_code == 0
    for parameter in ALL[path].params:
        text = getattr(parameter, "help", "") or ""
        assert " ".join(text.split()) in " ".join(shown.output.split()), parameter.name

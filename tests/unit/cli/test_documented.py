"""Commands that README and docs show exist, with their options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import holdfast
from holdfast.cli.main import app

ROOT = Path(holdfast.__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
COMMAND = re.compile(r"(?:`|^ {4}(?:sudo )?(?:\.venv/bin/)?)holdfast ([^`\n]*)", re.MULTILINE)
"""In code, within a sentence or in a block."""
OPTION = re.compile(r"--[a-z][a-z-]*")
WORD = re.compile(r"[a-z][a-z-]*$")


ROOT_COMMAND: Any = typer.main.get_command(app)


def unknown(line: str) -> list[str]:
    """Words of a command line that are neither a command nor an option of it."""
    command, missing = ROOT_COMMAND, list[str]()
    for word in line.partition("  #")[0].split():
        below = getattr(command, "commands", {})
        if word in below:
            command = below[word]
        elif option := OPTION.match(word):
            known = {
                name for each in (command, ROOT_COMMAND) for par in each.params for name in par.opts
            }
            missing += {option[0]} - known - {"--help"}
        elif below and command is not ROOT_COMMAND and WORD.match(word):
            missing.append(word)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    wrong = {line: words for line in COMMAND.findall(page.read_text()) if (words := unknown(line))}
    assert wrong == {}


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert unknown("switchover --too m2") == ["--too"]
    assert unknown("member forget m2") == ["forget"]
    assert unknown("--tls-ca F sandbox status --dir D  # and so on") == []

"""A copy of the server's option file for a program that is not the server.

The agent finds its server by the option file's name on its command line: any other program that needs the same settings
gets a copy with another name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from holdfast.errors import Refused


def copy_options(
    option_file: Path,
    target: Path,
    *,
    without: Collection[str] = (),
    loose: bool = False,
    group: str = "",
    more: Mapping[str, str] | None = None,
) -> None:
    """Write the copy, readable by its owner alone.

    :param without: options to leave out, spelt with underscores
    :param loose: a program that does not know an option ignores it
    :param group, more: options of a group of their own, at the end
    :raises Refused: it cannot be read or written
    """
    try:
        lines = [_line(line, without, loose) for line in option_file.read_text().splitlines()]
        if more:
            lines += [f"[{group}]", *(f"{name} = {_quoted(text)}" for name, text in more.items())]
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"cannot copy {option_file} to {target}: {error}") from error


def _line(line: str, without: Collection[str], loose: bool) -> str:
    text = line.strip()
    if not text or text[0] in "#;![":
        return line
    name = text.partition("=")[0].strip().replace("-", "_").lower().removeprefix("loose_")
    if name in without:
        return ""
    return f"loose_{text}" if loose and not text.lower().startswith("loose") else line


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

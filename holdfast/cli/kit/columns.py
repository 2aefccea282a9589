"""Prints rows in columns, as wide as their content, never cut to the width of a terminal; and what was done."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

Cell = tuple[str, str]
"""A text and its style, as rich names it."""


def print_columns(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], right: Collection[str] = ()
) -> None:
    """Print a head, unless it is empty, and rows; the columns named in ``right`` are aligned to the right."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    columns = list(zip(*rows, strict=True)) or [()] * len(head)
    widths = [max((len(text) for text, _ in column), default=0) for column in columns]
    widths = [
        max(width, len(each))
        for width, each in zip(widths, head or [""] * len(widths), strict=True)
    ]
    lines = [[(each, "dim") for each in head]] if head else []
    for line in [*lines, *rows]:
        shown = Text()
        for number, (text, style) in enumerate(line):
            set_right = bool(head) and head[number] in right
            padded = f"{text:>{widths[number]}}" if set_right else f"{text:{widths[number]}}"
            shown.append(padded, style)
            shown.append("  ")
        shown.rstrip()
        console.print(shown)


def print_done(as_json: bool, what: str, **fields: str) -> None:
    """:param fields: what it was done to, as programs read it"""
    if as_json:
        print(json.dumps({"done": what, **fields}))
    else:
        print(f"{' '.join(fields.values())}: {what}")

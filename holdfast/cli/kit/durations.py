"""Options that are durations: ``2``, ``2s``, ``500ms``, ``1.5m``, the same for every command."""

from __future__ import annotations

import time
from typing import Annotated

import typer

METAVAR = "DURATION"


def span(text: str | float) -> float:
    """Seconds, perhaps negative.

    :raises typer.BadParameter: the text is no duration
    """
    from holdfast.config.values import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None


def duration(text: str | float) -> float:
    """Seconds.

    :raises typer.BadParameter: the text is no duration, or negative
    """
    if (found := span(text)) < 0:
        raise typer.BadParameter(f"{text!r} must not be below 0")
    return found


def some_time(text: str | float) -> float:
    """Seconds, more than zero.

    :raises typer.BadParameter: the text is no duration, or zero
    """
    if not (found := duration(text)):
        raise typer.BadParameter(f"{text!r} must be more than 0")
    return found


def moment(at: float) -> str:
    """A date in the reader's time zone.

    :param at: seconds since 1970
    """
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))


Timeout = Annotated[
    float,
    typer.Option("--timeout", parser=duration, metavar=METAVAR, help="How long to wait at most."),
]

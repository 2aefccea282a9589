"""Waiting for what a manager's status says, in a sandbox and in a lab; and cleaning up either."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from holdfast.errors import DeadlinePassed, HoldfastError, Unreachable

POLL_SECONDS = 0.05

Status = dict[str, Any]
Say = Callable[[str], None]


def quiet(line: str) -> None:
    """Drops messages for which there is no reader."""


def first_status(
    ask: Callable[[], Status],
    predicate: Callable[[Status], bool],
    seconds: float,
    what: str,
    meanwhile: Callable[[], object] = lambda: None,
) -> Status:
    """The first status for which the predicate holds.

    :raises DeadlinePassed: holds the last status
    """
    end = time.monotonic() + seconds
    last = "no manager ever answered"
    while True:
        try:
            status = ask()
            if predicate(status):
                return status
            last = _summary(status)
        except Unreachable as error:
            last = str(error)
        meanwhile()
        if time.monotonic() > end:
            raise DeadlinePassed(f"waiting for {what} (last seen: {last})", seconds)
        time.sleep(POLL_SECONDS)


def is_whole(say: Say) -> Callable[[Status], bool]:
    """Whether the cluster is whole; says meanwhile what is missing, each cause once."""
    said = ""

    def whole(status: Status) -> bool:
        nonlocal said
        if status["reason"] != said and not status["whole"]:
            said = status["reason"]
            say(said)
        return bool(status["whole"] and status["writable"])

    return whole


class _Removable(Protocol):
    def down(self, remove: bool = ...) -> object: ...


def remove_quietly(cluster: _Removable) -> None:
    """End and remove it in whatever state it is; for cleaning up on the way out."""
    for _ in range(3):
        try:
            cluster.down(remove=True)
        except (HoldfastError, OSError):
            time.sleep(0.2)
        else:
            return


def _summary(status: Status) -> str:
    """A status in one line."""
    members = ", ".join(
        f"{each['name']} {each['role']} {each['state']}" for each in status["members"]
    )
    return f"{status['reason']} (term {status['term']}; {members})"

"""Waits until another primary takes writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.errors import DeadlinePassed, Unreachable

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

POLL_SECONDS = 0.05


def until_open(
    client: ManagerClient,
    cluster: str,
    is_open: Callable[[dict[str, Any]], bool],
    seconds: float,
    what: str,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The status once ``is_open`` holds.

    :param is_open: called with each status; raises :class:`Refused` where it will never hold
    :param what: names what is awaited; :param tell: gets the reason of each status, or why there is none
    :raises DeadlinePassed: with the last reason that the manager gave
    """
    end = time.monotonic() + seconds
    while True:
        try:
            answer = client.status(cluster)
            reason = str(answer["reason"])
            if is_open(answer):
                return answer
        except Unreachable as error:  # another manager may take over meanwhile
            reason = str(error)
        if tell:
            tell(reason)
        if time.monotonic() > end:
            raise DeadlinePassed(f"waiting {what}: {reason}", seconds)
        time.sleep(POLL_SECONDS)

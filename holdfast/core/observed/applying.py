"""How a replica gets on with what it has received, as its agent tells it."""

from __future__ import annotations

from dataclasses import dataclass

REMOVED = "the files of its binary log were removed while it runs, so nobody can replicate from it"


@dataclass(frozen=True, slots=True)
class Applying:
    """:ivar error: its applier is broken by this error of the server: it stopped there, and has not come past it since,
        however often it was started again; "": it is not
    :ivar seconds: for how long it has been broken, or its files have been removed
    :ivar repairs: how many times its data was replaced for that lately
    :ivar stalled: seconds for which its applier has run, with something left to apply, and has not finished a
        transaction; 0 otherwise
    :ivar removed: the files of its own binary log were removed while it runs: it applies, and nobody can fetch from it
    """

    error: str = ""
    seconds: float = 0.0
    repairs: int = 0
    stalled: float = 0.0
    removed: bool = False

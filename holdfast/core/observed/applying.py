"""How a replica's applier copes with what it has received, as its agent reports it."""

from __future__ import annotations

from dataclasses import dataclass

REMOVED = "the files of its binary log were removed while it runs, so nobody can replicate from it"


@dataclass(frozen=True, slots=True)
class Applying:
    """:ivar error: the applier is broken by this error of the server: it stopped there, and has not passed it since,
        however often it was started again; "": it is not broken
    :ivar seconds: for how long it has been broken, or the binary log's files have been removed
    :ivar repairs: how many times the member's data was replaced for that lately
    :ivar stalled: seconds for which the applier has run, with something left to apply, without finishing a transaction;
        0 otherwise
    :ivar removed: the files of the member's own binary log were removed while it runs: it applies, and no replica can
        fetch from it
    """

    error: str = ""
    seconds: float = 0.0
    repairs: int = 0
    stalled: float = 0.0
    removed: bool = False

"""Every exception of Holdfast, classed by its consequence.

HoldfastError
├── Refused            nothing was done, and asking again unchanged will be refused again
│   ├── BadInput       configuration, option or request is wrong; names the key
│   ├── StaleTerm      the command came from a manager that has been replaced
│   └── Conflict       the stored record was changed by another manager
├── Unreachable        no answer; nothing is known to have been done
├── OutcomeUnknown     it may have been done: look before doing it again
│   ├── CalledOff      it was begun, and something more important came
│   └── DeadlinePassed it was begun and had not ended in time
└── Fatal              the process that raised it cannot continue
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


class HoldfastError(Exception):
    """Base of all errors that Holdfast raises on purpose.

    :ivar said_by: the member whose agent said it; "" where it is our own
    """

    said_by = ""

    def by(self, member: str) -> Self:
        """The same, as said by that member's agent: its text begins with the name."""
        self.said_by = member
        return self

    @property
    def own(self) -> str:
        """The text without who said it."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.said_by}: {self.own}" if self.said_by else self.own


class Refused(HoldfastError):
    """Nothing was done; the message says what was asked, of which member, and what to do."""


class BadInput(Refused):
    """An operator's input is wrong.

    :ivar key: dotted path of the offending key or option, for example ``server.port``
    :ivar message: what is wrong with it
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class StaleTerm(Refused):
    """A command carried a term lower than the one that the agent has promised, or the same of another leadership."""

    def __init__(self, member: str, asked: int, promised: int) -> None:
        to = " to another manager" if asked == promised else ""
        super().__init__(
            f"{member} has promised term {promised}{to}; a command of term {asked} is void"
        )
        self.member = member
        self.asked = asked
        self.promised = promised


class Conflict(Refused):
    """Compare-and-set failed: the record, or the settings, are not at the version that was expected."""

    def __init__(self, cluster: str, expected: int, what: str = "record") -> None:
        super().__init__(f"another has changed the {what} of {cluster} since version {expected}")
        self.cluster = cluster
        self.expected = expected


class Unreachable(HoldfastError):
    """No connection, or no answer to something that changes nothing."""


class OutcomeUnknown(HoldfastError):
    """The connection or the deadline ended after the request went out."""


class DeadlinePassed(OutcomeUnknown):
    """The work was begun and did not end in time.

    :ivar what: what the caller was waiting for
    :ivar seconds: the time limit
    """

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: not done within {seconds:.2f} s")
        self.what = what
        self.seconds = seconds


class CalledOff(OutcomeUnknown):
    """The work was begun, and ended early by a manager, another command or an operator; the message names the cause.

    It says nothing about whether the work can be done: no verdict may follow from it.
    """


class Fatal(HoldfastError):
    """The process cannot continue, for example because its state directory is not writable."""


@dataclass(frozen=True, slots=True)
class WrongValue:
    """:ivar place: where it is in the document; :ivar unknown: there is no such key"""

    place: tuple[str | int, ...]
    message: str
    unknown: bool = False

    @property
    def key(self) -> str:
        return ".".join(map(str, self.place))

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.place else self.message


def first_wrong(details: Sequence[Mapping[str, Any]]) -> WrongValue:
    """Which of pydantic's complaints to show: a mistyped key is the cause of a missing one.

    :param details: ``ValidationError.errors()``
    """
    unknown = next((each for each in details if each["type"] == "extra_forbidden"), None)
    first = unknown or details[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    missing = first["type"] == "missing"
    text = "unknown key" if unknown else "required, and not there" if missing else message
    return WrongValue(tuple(first["loc"]), text, unknown is not None)

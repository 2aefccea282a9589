"""The closed union of what a manager may ask of an agent. Every one can be asked again without harm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """Refuse every lower term from now on (on disk before the answer) and stop the receiver."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until the applier has applied all that was received."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Replicate from ``source``, read-only; ``semi_sync``: acknowledge (a voter) or not (a learner).

    Drains before it changes the source, so nothing that was received is dropped.
    """

    source: str
    host: str
    port: int
    semi_sync: bool


@dataclass(frozen=True, slots=True)
class Promote:
    """Become the primary: follow nobody, flush durably, wait for ``acks``, prove it with a row, open.

    :ivar serial: serial of the configuration that the row proves
    """

    acks: int
    serial: int


@dataclass(frozen=True, slots=True)
class SetAcks:
    """On the primary: commits wait for ``acks`` voters from now on."""

    acks: int


@dataclass(frozen=True, slots=True)
class Prove:
    """On the primary: commit a row; once it is acknowledged, ``acks`` voters hold all before it."""

    serial: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Make the server answer nobody: kill it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Save and cut from the stopped server's binlog what ``primary`` lacks.

    :ivar present: GTIDs that the primary has, in the server's own text
    """

    primary: str
    present: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start the server, read-only, following nobody. Its binlog is taken as it is."""


Command = Promise | Drain | Follow | Promote | SetAcks | Prove | Fence | Cut | Start

"""What is under way: a change of primary, or of the mode, that the record remembers until it has ended.

Each kind has only the steps and the fields that it can have: for instance, only a transition that can lose something
has ``lossy``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on a clock that nobody can set: CLOCK_MONOTONIC of one run of a manager's kernel.

    A wall clock may be stepped, and what waits for it then waits as long as the step was. A manager on another host, or
    after a restart of this one, cannot know how long ago it was: see ``Record.taken_over``.

    :ivar boot: names that run of that kernel
    :ivar at: seconds
    """

    boot: str
    at: float


class TransitionKind(StrEnum):
    """Names a transition in the record, in events and for hooks."""

    BOOTSTRAP = "bootstrap"
    FAILOVER = "failover"
    RESTART = "restart"
    STRENGTHEN = "strengthen"
    SWITCHOVER = "switchover"


class Step(StrEnum):
    """ELECT: promises are gathered, the old primary is still the recorded one. CLOSE: the primary is about to be
    restarted on purpose. OPEN: the commit point is past, the recorded primary is being made writable. PROVE: a row of
    the primary must be acknowledged. CHAIN: before a switchover, other voters are made to follow the candidate; the
    primary continues. FREEZE: the primary takes no more writes, and the candidate applies what it has."""

    ELECT = "elect"
    CLOSE = "close"
    OPEN = "open"
    PROVE = "prove"
    CHAIN = "chain"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The first primary is being opened."""

    kind: ClassVar = TransitionKind.BOOTSTRAP
    step: ClassVar[Literal[Step.OPEN]] = Step.OPEN


@dataclass(frozen=True, slots=True)
class Failover:
    """Another primary takes over from one that is lost.

    :ivar deposed: the primary before
    :ivar lossy: in ELECT: the next primary may lack what the one before had acknowledged; a setting or an operator
        allowed it
    :ivar wish: in ELECT: the member that must take over if possible, or ""
    :ivar ordered: in ELECT: an operator ordered it
    :ivar skip_stop: in ELECT: an operator continues without the stop hook
    """

    kind: ClassVar = TransitionKind.FAILOVER
    step: Literal[Step.ELECT, Step.OPEN]
    deposed: str
    lossy: bool = False
    wish: str = ""
    ordered: bool = False
    skip_stop: bool = False


@dataclass(frozen=True, slots=True)
class Switchover:
    """An operator wants another primary; see ``core/change/switchover.py``.

    :ivar wish: the member that takes over
    :ivar until: before OPEN: when it is undone, if it has not passed its commit point
    :ivar deposed: in OPEN: the primary before
    :ivar drained: in OPEN: all that the primary before has, which its successor has applied
    """

    kind: ClassVar = TransitionKind.SWITCHOVER
    ordered: ClassVar = True
    step: Literal[Step.CHAIN, Step.FREEZE, Step.OPEN]
    wish: str
    until: Instant | None = None
    deposed: str = ""
    drained: str = ""


@dataclass(frozen=True, slots=True)
class RestartInPlace:
    """The primary comes back in place; no other member was promoted.

    :ivar lossy: in OPEN: it is opened with what it has, although its voters may have more: an operator allowed it
    :ivar ordered: in OPEN: an operator ordered to open it
    """

    kind: ClassVar = TransitionKind.RESTART
    step: Literal[Step.CLOSE, Step.OPEN]
    lossy: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Strengthen:
    """The mode becomes strong."""

    kind: ClassVar = TransitionKind.STRENGTHEN
    step: ClassVar[Literal[Step.PROVE]] = Step.PROVE


Transition = Bootstrap | Failover | Switchover | RestartInPlace | Strengthen


def transition_json(transition: Transition) -> dict[str, Any]:
    """The transition with every key, also those of other kinds, as before each kind had a class of its own.

    So a manager of that version can read it, and can take over during an upgrade; the record's format stays the same.
    """
    return {
        "kind": transition.kind,
        "step": transition.step,
        "deposed": "",
        "lossy": False,
        "wish": "",
        "ordered": isinstance(transition, Switchover),
        "until": None,
        "drained": "",
        "skip_stop": False,
        **asdict(transition),
    }


def instant_from(data: Any) -> Instant | None:
    """The moment. In records of an earlier version a date stands there: then the moment is not known."""
    if isinstance(data, dict):
        return Instant(data["boot"], data["at"])
    return Instant("", 0.0) if data else None


def transition_from(data: dict[str, Any]) -> Transition:
    """:raises ValueError, KeyError: ``data`` is not the result of :func:`transition_json`"""

    def known(*keys: str) -> dict[str, Any]:
        return {key: data[key] for key in keys if key in data}

    kind, step = TransitionKind(data["kind"]), Step(data["step"])
    match kind, step:
        case TransitionKind.BOOTSTRAP, Step.OPEN:
            return Bootstrap()
        case TransitionKind.FAILOVER, (Step.ELECT | Step.OPEN):
            return Failover(step, data["deposed"], **known("lossy", "wish", "ordered", "skip_stop"))
        case TransitionKind.SWITCHOVER, (Step.CHAIN | Step.FREEZE | Step.OPEN):
            until = instant_from(data.get("until"))
            return Switchover(step, data["wish"], until, **known("deposed", "drained"))
        case TransitionKind.RESTART, (Step.CLOSE | Step.OPEN):
            return RestartInPlace(step, **known("lossy", "ordered"))
        case TransitionKind.STRENGTHEN, Step.PROVE:
            return Strengthen()
    raise ValueError(f"a {kind} has no step {step}")

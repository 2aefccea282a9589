"""The closed union of the commands that a manager may send to an agent. Each can be sent again without harm."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from holdfast.core.lease import Electorate
from holdfast.core.settings import WaitPoint
from holdfast.core.timing import Timing


class _Timed:
    """:cvar within: seconds that an agent may take to carry out the command"""

    __slots__ = ()
    within: ClassVar[float]

    def __init_subclass__(cls, seconds: float | None = None) -> None:
        if seconds is not None:  # else the same class once more, with slots
            cls.within = seconds


def answered_within(command: Command | type[Command]) -> float:
    """How many seconds to wait for an answer: a little longer than the agent may take."""
    within = command.within
    return max(6.0, within + min(max(2.0, within / 3), 10.0))


@dataclass(frozen=True, slots=True)
class Promise(_Timed, seconds=1.0):
    """Refuse every lower term from now on (on disk before the answer) and stop the receiver."""


@dataclass(frozen=True, slots=True)
class Drain(_Timed, seconds=10.0):
    """Wait until the applier has applied all that was received.

    :ivar upto: wait until these GTIDs are applied, received or not yet; "": what was received by now
    :ivar electorate: set if the member will soon be primary: the electorate that will count then. Its binlog is flushed
        to disk now; otherwise its first commit as primary would have to wait for that. None: it will not
    """

    upto: str = ""
    electorate: Electorate | None = None


@dataclass(frozen=True, slots=True)
class Follow(_Timed, seconds=15.0):
    """Replicate from ``source``, read-only; ``semi_sync``: acknowledge (a voter) or not (a learner).

    The server drains before it changes the source, so nothing that was received is dropped. A frozen primary on which
    no commit waits becomes a replica without a restart.

    :ivar heartbeat: seconds after which an idle source sends a heartbeat
    :ivar events: switch the event scheduler off here; False: leave it as it is
    """

    source: str
    host: str
    port: int
    semi_sync: bool
    heartbeat: float = Timing().heartbeat
    events: bool = True


@dataclass(frozen=True, slots=True)
class Fetch(_Timed, seconds=15.0):
    """Between promise and promotion: receive what this member lacks from ``source``, another member that promised.

    The promise stands: nothing is received from the primary that is being deposed, and nothing is acknowledged.
    """

    source: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Promote(_Timed, seconds=15.0):
    """Become the primary: stop following, flush durably, wait for ``acks``, prove this with a row, open.

    :ivar serial: serial of the configuration that the row proves
    :ivar timeout_seconds: as in :class:`SetAcks`
    :ivar electorate: from now on the server takes clients only under a lease; None: without one
    :ivar drained: everything that the former primary, which is frozen, has: the server opens as soon as it has applied
        that and its ackers are connected; it proves its row, and stops following, when it is open. "": no server is
        frozen
    :ivar events: switch the event scheduler and the events on from now on; False: leave them as they are
    """

    acks: int
    serial: int
    timeout_seconds: float = 0.0
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC
    electorate: Electorate | None = None
    drained: str = ""
    events: bool = True


@dataclass(frozen=True, slots=True)
class Freeze(_Timed, seconds=5.0):
    """On the primary: take no more writes, whatever the client's privileges, and end the clients' sessions.

    Done once no commit is under way or waits; the state in the answer has the last positions. If it is refused, writes
    continue. Promote opens the server again, Follow makes it a replica.

    :ivar seconds: how long what is under way may take
    """

    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Close(_Timed, seconds=10.0):
    """On the primary: take no more writes and stay the primary, so that a copy of it can be made.

    Done once no commit is under way or waits. If it is refused, writes continue. Promote opens the server again.
    """


@dataclass(frozen=True, slots=True)
class EndSessions(_Timed, seconds=5.0):
    """On the primary: end these clients' connections; what they have not committed is rolled back."""

    sessions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EndReplicas(_Timed, seconds=2.0):
    """On the primary: end these replicas' sessions; once it is done, their acknowledgements no longer count.

    What they have acknowledged is in doubt.

    :ivar why: which replicas these are
    """

    sessions: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class SetAcks(_Timed, seconds=3.0):
    """On the primary: commits wait for ``acks`` voters from now on.

    :ivar timeout_seconds: after which commits stop waiting (mode semi-sync); 0: never
    """

    acks: int
    timeout_seconds: float = 0.0
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC


@dataclass(frozen=True, slots=True)
class Bar(_Timed, seconds=2.0):
    """On the primary: lock the replication account ``user`` of a member, and end all its connections.

    This is not written to the binlog. Once it is done, the member can acknowledge nothing more here.
    """

    user: str


@dataclass(frozen=True, slots=True)
class Unbar(_Timed, seconds=1.0):
    """On the primary: let ``user`` connect again."""

    user: str


@dataclass(frozen=True, slots=True)
class Prove(_Timed, seconds=5.0):
    """On the primary: commit a row; once it is acknowledged, ``acks`` voters hold all before it.

    :ivar electorate: the electorate from now on; None: as before
    """

    serial: int
    electorate: Electorate | None = None


@dataclass(frozen=True, slots=True)
class Fence(_Timed, seconds=2.0):
    """Kill the server, so that it answers no client. Done once the process is gone, or DYING."""


@dataclass(frozen=True, slots=True)
class Cut(_Timed, seconds=60.0):
    """Save what ``primary`` lacks from the stopped server's binlog, and cut it off.

    :ivar present: GTIDs that the primary has, in the server's own text
    """

    primary: str
    present: str


@dataclass(frozen=True, slots=True)
class Start(_Timed, seconds=5.0):
    """Start the server, read-only and following no source. Its binlog is taken as it is."""


@dataclass(frozen=True, slots=True)
class Restart(_Timed, seconds=120.0):
    """Shut down the server in order and start it again. On a primary only while no commit waits: a waiting commit would
    be answered OK. If it is refused, the server continues as before."""


@dataclass(frozen=True, slots=True)
class Rewind(_Timed, seconds=120.0):
    """Undo, from their row events, the transactions that this server has committed and ``primary`` lacks.

    They are written to a file first. Afterwards the server follows no source.

    :ivar present: GTIDs that the primary has, in the server's own text
    """

    primary: str
    present: str


@dataclass(frozen=True, slots=True)
class Judge(_Timed, seconds=20.0):
    """Read what this server has and ``primary`` lacks, and report what of it changes nothing: ``MemberState.judged``.

    :ivar present: as in :class:`Rewind`
    """

    primary: str
    present: str


@dataclass(frozen=True, slots=True)
class Forget(_Timed, seconds=20.0):
    """MariaDB: remove what changes nothing, and what ``primary`` lacks, from this server's GTID state, and start its
    applier.

    What it has received is kept, and so is its incarnation. Refused if any other transaction stands behind these.

    :ivar present: as in :class:`Rewind`
    """

    primary: str
    present: str


@dataclass(frozen=True, slots=True)
class CommitEmpty(_Timed, seconds=5.0):
    """MySQL, on the primary: commit an empty transaction for each of these GTIDs that it lacks.

    :ivar gtids: single GTIDs, separated by commas, of transactions that change nothing on the member that has them
    """

    gtids: str


@dataclass(frozen=True, slots=True)
class Compare(_Timed, seconds=5.0):
    """Compare the tables that a rewind has touched with those of ``primary``, at one GTID. Continues in the background.

    :ivar agent: URL of the primary's agent
    """

    primary: str
    agent: str


@dataclass(frozen=True, slots=True)
class Verify(_Timed, seconds=8.0):
    """Compare all tables with those of ``primary``, a piece at a time, in the background.

    Any other command interrupts it; the next Verify continues from there.

    :ivar agent: URL of the primary's agent
    :ivar tables: only these, as ``schema.table``; () for all
    :ivar rate: rows a second at most; 0: as many as half of the time allows
    :ivar max_load: pause while more threads than this are at work on either server; 0: never
    :ivar anew: from the beginning, even if part of it was done before
    :ivar stop: end what is under way, for good
    :ivar ordered, repair: requested by an operator, with a clone if it finds a difference; for display only
    """

    primary: str
    agent: str
    tables: tuple[str, ...] = ()
    rate: int = 0
    max_load: int = 0
    anew: bool = False
    stop: bool = False
    ordered: bool = False
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Clone(_Timed, seconds=30.0):
    """Replace all data by a copy of ``donor``'s, in the background.

    What no other member has is saved first; what cannot be saved is not touched without ``discard``.

    :ivar host, port: of the donor's server; :ivar agent: URL of the donor's agent
    :ivar present: GTIDs that the primary has, in the server's own text
    """

    donor: str
    host: str
    port: int
    agent: str
    present: str
    discard: bool = False


@dataclass(frozen=True, slots=True)
class Inventory(_Timed, seconds=60.0):
    """On a server that is down: report which transactions its files hold, also those that it had only received.

    Those of other servers: see ``MemberState.kept``.
    """


@dataclass(frozen=True, slots=True)
class Equip(_Timed, seconds=5.0):
    """Load and set what a running server lacks if it was not started from our option file (semi-sync, time-outs)."""


@dataclass(frozen=True, slots=True)
class EnsureAccount(_Timed, seconds=5.0):
    """On the primary: create the replication account ``user``, or give it this password; replicas get it from there.

    :ivar authentication: what the server stores instead of the password
    """

    user: str
    authentication: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MendAccount(_Timed, seconds=3.0):
    """On the primary: make the replication account ``user`` accept the password that its member's agent knows.

    This opens no account that is locked or missing: see ``core/members/accounts.py``.

    :ivar agent: URL of the member's agent, which gives what the server stores instead of the password
    :ivar logged: through the binlog, so that replicas have it, too; expects that the account exists
    """

    user: str
    member: str
    agent: str
    logged: bool = False


@dataclass(frozen=True, slots=True)
class Initialise(_Timed, seconds=300.0):
    """Initialise the empty data directory, with the accounts of all members: see ``core/observed/data_state.py``.

    :ivar agents: URLs of the members' agents, by member: each reports its replication account
    """

    agents: tuple[tuple[str, str], ...]


Command = (
    Promise
    | Drain
    | Follow
    | Fetch
    | Promote
    | Freeze
    | Close
    | EndSessions
    | EndReplicas
    | SetAcks
    | Prove
    | Bar
    | Unbar
    | Fence
    | Cut
    | Start
    | Restart
    | Rewind
    | Judge
    | Forget
    | CommitEmpty
    | Compare
    | Verify
    | Clone
    | Inventory
    | Equip
    | EnsureAccount
    | MendAccount
    | Initialise
)


def name_of(kind: type[Command]) -> str:
    """``SetAcks`` -> ``set_acks``: on the wire, in events, and in ``MemberState.busy`` while it is carried out."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()

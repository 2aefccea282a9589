"""What was observed, frozen. "Could not observe" is a separate state, never "down"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.core.calls import Called, Phase
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.lease import Asked, Lease, Protection
from holdfast.core.observed.applying import Applying
from holdfast.core.observed.comparison import Difference, Verification
from holdfast.core.observed.data_state import Data
from holdfast.core.observed.dumps import Doubt, Dump
from holdfast.core.observed.lapse import Lapse
from holdfast.core.observed.lineage import RecordMark
from holdfast.core.observed.logins import Logins
from holdfast.core.observed.progress import Position, Progress
from holdfast.core.observed.tally import Tally
from holdfast.core.settings import WaitPoint
from holdfast.core.wording import lasting


class ServerStatus(StrEnum):
    """The database server's process, as its agent sees it.

    DYING: it was killed and answers no client any more, but its process still exists (its disk hangs).
    """

    DOWN = "down"
    DYING = "dying"
    STARTING = "starting"
    UP = "up"


class LookFailure(StrEnum):
    """Why a server that runs is not observed, as far as rules distinguish that; ``MemberState.unobserved`` has it in
    words.

    NOT_YET: it was found running, and may be silent. SHUTS_DOWN: it was up, and its socket accepts no connection now.
    """

    NOT_YET = "not yet"
    SHUTS_DOWN = "shuts down"
    OTHER = "other"


NOT_LOOKED_YET = "the agent was restarted, and has had no answer yet"
""":attr:`LookFailure.NOT_YET` in words."""
SHUTS_DOWN = "it is shutting down, and takes no connections any more"
""":attr:`LookFailure.SHUTS_DOWN` in words."""


class Receiver(StrEnum):
    """The thread that fetches events from the source (I/O thread)."""

    OFF = "off"
    CONNECTING = "connecting"
    ON = "on"


class TailVerdict(StrEnum):
    """The state of the end of a stopped server's binlog; see ``binlog/pending/tail.py``.

    COMMITTED: it has what the primary lacks, and may have committed it: the server must be started, and rewound.
    UNSAFE: the member must be cloned.
    """

    UNCHECKED = "unchecked"
    CLEAN = "clean"
    CUT = "cut"
    COMMITTED = "committed"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the binlog of a server that is down, compared with the primary of ``term``.

    :ivar saved: file to which transactions were copied before they were cut, or rewound, or ""
    :ivar reason: for UNSAFE: why, and what an operator can do
    """

    verdict: TailVerdict = TailVerdict.UNCHECKED
    term: int = 0
    saved: str = ""
    transactions: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Replication:
    """Which source the server follows, and how.

    :ivar source: ``host:port`` or "" if it follows no source
    :ivar user: the account by which it follows; "": not known
    :ivar error: the last error of receiver or applier, or ""; :ivar applier_error: the applier's last, or ""
    :ivar lag_seconds: age of what it applies; None if unknown
    :ivar fetched: position in the source's binlog up to which it has received; :ivar executed: up to which it has
        applied
    :ivar purged: the source no longer has what this server needs next
    :ivar unheard: for how long nothing has come from the source, neither event nor heartbeat; 0 while something does
    :ivar denied: the source refuses the login of its account, or its right to replicate
    :ivar refused: the source's host refuses connections to its port: the source's process is gone
    :ivar filters: what it receives and leaves out, as ``name=value``; :ivar delay: seconds by which it applies later
    """

    source: str = ""
    receiver: Receiver = Receiver.OFF
    applier: bool = False
    error: str = ""
    lag_seconds: float | None = None
    fetched: Position = field(default_factory=Position)
    executed: Position = field(default_factory=Position)
    purged: bool = False
    unheard: float = 0.0
    refused: bool = False
    user: str = ""
    filters: tuple[str, ...] = ()
    delay: int = 0
    denied: bool = False
    applier_error: str = ""


@dataclass(frozen=True, slots=True)
class SemiSync:
    """The settings and the state of semi-sync on one server.

    :ivar source: commits wait for acknowledgements here; :ivar acks: for how many
    :ivar clients: how many semi-sync replicas are connected
    :ivar replica: this server acknowledges what it receives
    :ivar timeout_seconds: after which commits stop waiting; 0: never
    :ivar degraded: commits do not wait now, although they should: the time-out has passed
    :ivar waiting: how many sessions wait for an acknowledgement
    :ivar waits_alone: commits wait also while no replica is connected
    :ivar tally: zeros while ``source`` is off
    """

    source: bool = False
    acks: int = 0
    clients: int = 0
    replica: bool = False
    timeout_seconds: float = 0.0
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC
    degraded: bool = False
    waiting: int = 0
    waits_alone: bool = True
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class MemberState:
    """What one agent reports about its server and itself.

    ``promised``, ``frozen`` and ``stopped`` are no three states of one: a primary that is frozen for its successor and
    has not followed it yet promises the next term if that successor dies. It then holds both terms: it must stay
    frozen (a late SetAcks or Prove is refused, and it gives its lease up before it follows) until a Follow or Promote
    of the new term clears all three. ``stopped`` comes first and stays: where ``frozen`` is set, both have one term.

    :ivar term: the highest term of which the agent has had a command: it refuses lower ones
    :ivar promised: the term of a Promise that was carried out completely: since then the receiver is stopped, and the
        positions were read after that. 0 once the server may receive again
    :ivar incarnation: names this run of the server process; "" while it is down
    :ivar origin: stream of the GTIDs that the server issues itself (see ``gtid.py``): its UUID, or ``domain-server``
    :ivar received: GTIDs received (applied ones included), in the server's own text
    :ivar applied: GTIDs applied, and so in this server's own binlog
    :ivar last_applied: the same, at the last look before the server ended; only for display
    :ivar proved: highest serial of a configuration in which this incarnation has committed a row of its own
    :ivar account: its own replication account
    :ivar barred: accounts that may replicate and are locked here; :ivar replicators: all that may; None: not known
    :ivar data: what is in its data directory, if a cluster may be founded from it
    :ivar logins: whether servers accept the logins of its own two accounts
    :ivar dumps: the replicas' sessions here, while commits wait for acknowledgements
    :ivar doubt: kept until a row of its own has been acknowledged since
    :ivar written: the end of its own binlog
    :ivar silent_seconds: for how long its server has not answered the agent; 0 while it does
    :ivar stuck_seconds: for how long a small write on it, as primary, has not completed although it answers, and
        although it need not wait for voters; 0 otherwise
    :ivar stuck: what blocks that write, as far as the agent can see, or ""
    :ivar locked_seconds: for how long writes on it, as primary, have waited for a lock that a session holds
    :ivar lease: of a primary
    :ivar vouched: seconds for which the primary may still rely on this member's last confirmation (``lease.py``)
    :ivar unvouched: seconds since that confirmation ended; an agent that starts assumes that one was just given
    :ivar asked: when the member was last asked to confirm, in this run of the agent; None: never
    :ivar protections: what would enforce a lease on its server, if it is primary
    :ivar suspects: tables that a rewind touched, or that a crash may have left without what was logged, not compared
        with the primary's yet
    :ivar prepared: XA transactions that have been prepared for some seconds, as ``xid.sql_form`` gives them
    :ivar judged: what the primary lacked and the agent has read; :ivar harmless: what of it changes nothing
    :ivar unfit: why it must be cloned, or ""
    :ivar differs: the differences from the primary that a verification found
    :ivar verified: the last verification; None: there was none since its data came
    :ivar progress: the work in the background
    :ivar busy: the command that is being carried out, or ""
    :ivar reason: why the member is not well, in one sentence, or ""; shown as :attr:`why`
    :ivar lasted: for how many seconds that has been so, if it is shown with the reason; else 0
    :ivar frozen: the term of a Freeze that holds: it was a primary, takes no writes at all, and the positions were read
        after that; 0 otherwise
    :ivar stopped: the term of a Freeze that has stopped all writes, and may still be ending clients' sessions;
        ``applied`` is as of then, or a look older; 0 otherwise
    :ivar leader: the leadership to which ``term`` was promised
    :ivar record: what the agent remembers of the newest record that it obeyed
    :ivar identity: of the agent, made once and kept in its state_dir
    :ivar let_through: why commits of its server may have completed without a voter, until a row of its own has been
        acknowledged since; "" otherwise
    :ivar unacknowledged: how many of its transactions are known to have been acknowledged, or committed, without a
        voter while they should have waited for one, since its agent began
    :ivar cloning: the donor from which it is being cloned now, or ""; its previous data no longer counts
    :ivar clone_failed: the donors from which clones have failed since the last one that succeeded, in order
    :ivar clone_refused: why its agent refused the last command to clone it, or ""
    :ivar kept: of a server that is down: the GTIDs that its files hold, received or applied, without those that it has
        issued itself; None: they were not read
    :ivar regained: it was started again with all that it had when its last run as a primary ended; False: not known
    :ivar applying: how its applier copes with what it has received
    :ivar unstartable: why its agent does not start its server (it boots open), or ""
    :ivar full: which space that its commits need is used up, or ""
    :ivar concerns: what an operator should attend to, although the member is well
    :ivar start_failed: why its server did not come up the last time, or ""; :ivar resting: so it is not started now
    :ivar unobserved: why its agent cannot query a server that runs, in the server's own words; "" while it can. What is
        said about the server is then as old as the last look, or, if the server is STARTING, not known at all
    :ivar look_failure: the same for rules; OTHER while it can look
    :ivar unobserved_seconds: for how long it could not be queried although it answers; also for want of a connection
    """

    name: str
    flavor: Flavor
    term: int = 0
    promised: int = 0
    server: ServerStatus = ServerStatus.DOWN
    incarnation: str = ""
    version: str = ""
    server_id: int = 0
    origin: str = ""
    writable: bool = False
    received: str = ""
    applied: str = ""
    last_applied: str = ""
    proved: int = 0
    replication: Replication = field(default_factory=Replication)
    semi_sync: SemiSync = field(default_factory=SemiSync)
    tail: Tail = field(default_factory=Tail)
    account: str = ""
    barred: tuple[str, ...] = ()
    replicators: tuple[str, ...] | None = None
    data: Data = Data.USED
    logins: Logins = field(default_factory=Logins)
    written: Position = field(default_factory=Position)
    silent_seconds: float = 0.0
    stuck_seconds: float = 0.0
    stuck: str = ""
    locked_seconds: float = 0.0
    lease: Lease = field(default_factory=Lease)
    vouched: float = 0.0
    unvouched: float = 0.0
    asked: Asked | None = None
    protections: tuple[Protection, ...] = ()
    suspects: tuple[str, ...] = ()
    judged: str = ""
    harmless: str = ""
    unfit: str = ""
    differs: tuple[Difference, ...] = ()
    verified: Verification | None = None
    progress: Progress | None = None
    busy: str = ""
    reason: str = ""
    lasted: float = 0.0
    frozen: int = 0
    stopped: int = 0
    leader: str = ""
    record: RecordMark = field(default_factory=RecordMark)
    identity: str = ""
    let_through: str = ""
    unacknowledged: int = 0
    cloning: str = ""
    clone_failed: tuple[str, ...] = ()
    clone_refused: str = ""
    prepared: tuple[str, ...] = ()
    unstartable: str = ""
    start_failed: str = ""
    resting: bool = False
    full: str = ""
    concerns: tuple[str, ...] = ()
    unobserved: str = ""
    look_failure: LookFailure = LookFailure.OTHER
    unobserved_seconds: float = 0.0
    kept: str | None = None
    regained: bool = False
    dumps: tuple[Dump, ...] = ()
    doubt: Doubt | None = None
    applying: Applying = field(default_factory=Applying)

    @property
    def up(self) -> bool:
        return self.server is ServerStatus.UP

    @property
    def observed(self) -> bool:
        """Whether its server is up, and what is said about it here is current."""
        return self.up and not self.silent_seconds and not self.unobserved

    @property
    def why(self) -> str:
        """The reason as it is shown: with its duration, if that is known."""
        return (
            f"{self.reason} for " + lasting(self.lasted, digits=1) if self.lasted else self.reason
        )

    @property
    def verifying(self) -> bool:
        """Whether its tables are being compared with the primary's now: any command interrupts that."""
        return self.verified is not None and not self.verified.ended and self.progress is not None

    @property
    def occupied(self) -> Progress | None:
        """The work in its background that must be waited for."""
        return None if self.verifying else self.progress

    @property
    def ended(self) -> bool:
        """Whether its server's process has ended, in the view of a rule that asks for it or waits for it."""
        return self.server in (ServerStatus.DOWN, ServerStatus.DYING)

    def received_set(self) -> GtidSet:
        return parse(self.flavor, self.received)

    def applied_set(self) -> GtidSet:
        return parse(self.flavor, self.applied)


@dataclass(frozen=True, slots=True)
class Seen:
    """The agent answered; ``at`` is the manager's monotonic clock, in seconds."""

    state: MemberState
    at: float


@dataclass(frozen=True, slots=True)
class Unseen:
    """The agent has not answered since ``since``; ``last`` is its last answer, if there was one.

    :ivar agent_gone: its host has since then refused connections to the agent's port: the agent enforces no lease
    :ivar asked: False: this manager has had neither an answer from it nor a failure
    """

    reason: str
    since: float
    last: MemberState | None = None
    agent_gone: bool = False
    asked: bool = True


Sighting = Seen | Unseen
NOT_ASKED = "not asked yet"
"""Why a member is unseen of which this manager has had neither an answer nor a failure."""


@dataclass(frozen=True, slots=True)
class View:
    """All that the manager knows of the members at the moment ``now`` (its monotonic clock, seconds).

    :ivar quiet: for how many seconds each member has received nothing new
    :ivar leases: the moment at which each member's lease, if it was ever granted one, is certainly over
    :ivar enforced: a process ends the server of a primary whose agent does not answer, once its lease is over; False:
        certainly none does; None: not known. See ``core/rules/enforcement.py``
    :ivar opening: for how many seconds the named primary has not been seen open; 0: it is, or need not be
    :ivar boot: names the run of the kernel whose clock ``now`` is of
    :ivar date: seconds since 1970, by a clock that may be stepped: for schedules and for display
    :ivar hooked: there are hooks to be called; :ivar called: the outcomes of the calls so far
    """

    members: Mapping[str, Sighting]
    now: float
    lapses: Mapping[str, Lapse] = field(default_factory=dict)
    quiet: Mapping[str, float] = field(default_factory=dict)
    leases: Mapping[str, float] = field(default_factory=dict)
    enforced: bool | None = None
    opening: float = 0.0
    boot: str = ""
    date: float = 0.0
    hooked: bool = False
    called: Mapping[Phase, Called] = field(default_factory=dict)

    def state(self, name: str) -> MemberState | None:
        """The member's present state, or None if it cannot be observed."""
        match self.members.get(name):
            case Seen(state=state):
                return state
            case _:
                return None

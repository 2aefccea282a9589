"""What was found on a database host, frozen; ``member.py`` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Dump


@dataclass(frozen=True, slots=True)
class Upstream:
    """One source that a server follows, in the server's own words.

    :ivar channel: its name; "" for the default one
    :ivar server_id, uuid: of the source, as the receiver learned them; 0 and "" before it ever connected
    :ivar gtid: positions are GTIDs, not places in a file
    :ivar delay_seconds: for which it delays what it has received, on purpose
    :ivar filters: what of the source it does not apply, as ``option=value``
    """

    host: str
    port: int
    user: str
    channel: str = ""
    server_id: int = 0
    uuid: str = ""
    gtid: bool = False
    receiver: bool = False
    applier: bool = False
    error: str = ""
    tls: bool = False
    delay_seconds: int = 0
    filters: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Boot:
    """What the server would boot with: its option file with the files that it includes, and persisted variables.

    :ivar options: by names with underscores, in the words of the server's flavor; a switch is ON or OFF
    :ivar filters: options that leave something out of a binlog or of what is applied, as ``option=value``
    :ivar problem: why a file could not be read, or ""
    :ivar sources: the file that an option's value comes from, by the option's name
    """

    file: str
    options: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    problem: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """The file that sets ``name``, or that should."""
        return self.sources.get(name, self.file)


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit that may start a database server.

    :ivar enabled: it starts at boot
    :ivar restart: as ``Restart=`` says
    :ivar runs_it: the present process of the server belongs to it
    """

    name: str
    masked: bool = False
    enabled: bool = False
    restart: str = "no"
    runs_it: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """A file system, in bytes."""

    path: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables with something in common: how many, and the names of the first few."""

    count: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found about one member.

    :ivar problem: why the server could not be asked, or ""; then only what is in files is known
    :ivar datadir, socket: as the agent is configured
    :ivar variables: global variables of the running server, by name; those that it does not have are missing here
    :ivar origins: the file from which the running server took a variable, by its name; only of those from files
    :ivar privileges: of the agent's administrative account on all tables, in capitals; "ALL PRIVILEGES" if the server
        says so
    :ivar replicators: accounts that may replicate; :ivar backup_admins: from which a clone may be made (MySQL)
    :ivar account: the member's own replication account
    :ivar pid: of the server's process, as the agent found it; 0 if it did not
    :ivar signals: the agent may send it signals
    :ivar supervisor: a wrapper that starts the server again when it ends (mysqld_safe), or ""
    :ivar open_files: how many files the server may open, and how many one that its agent starts; None: not known
    :ivar real: where folders and files really are that are named through links, by the names in use
    :ivar plugins: libraries of semi-sync that it could load
    :ivar installed: libraries that it loads at every start, as its own table says (MySQL)
    :ivar foreign, keyless: tables that are not InnoDB's; without a primary key. None: could not be counted
    :ivar listen: address of the agent's API; :ivar guarded: it speaks TLS, and requires certificates
    :ivar certificates: for how many days the agent's certificate files are valid, by path
    :ivar encrypting: it follows with certificates (server.tls)
    :ivar lenient: accounts that may replicate from other hosts without showing a certificate
    :ivar dumps: replicas' sessions here
    :ivar applied, origin: GTIDs that it has, and the stream of those that it issues, as in ``MemberState``
    :ivar clock_offset: seconds by which its host's clock is ahead of the asker's; None if unknown
    """

    member: str
    flavor: Flavor
    problem: str = ""
    version: str = ""
    datadir: str = ""
    socket: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    upstreams: tuple[Upstream, ...] = ()
    boot: Boot = field(default_factory=lambda: Boot(""))
    units: tuple[Unit, ...] = ()
    pid: int = 0
    signals: bool = True
    supervisor: str = ""
    open_files: tuple[int, int] | None = None
    real: Mapping[str, str] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    privileges: frozenset[str] = frozenset()
    account: str = ""
    replicators: frozenset[str] = frozenset()
    backup_admins: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()
    installed: frozenset[str] = frozenset()
    events: int = 0
    foreign: Tables | None = None
    keyless: Tables | None = None
    binlog_index_found: bool = True
    listen: str = ""
    guarded: bool = False
    certificates: Mapping[str, int] = field(default_factory=dict)
    encrypting: bool = False
    lenient: frozenset[str] = frozenset()
    dumps: tuple[Dump, ...] = ()
    applied: str = ""
    origin: str = ""
    clock_offset: float | None = None

    @property
    def writable(self) -> bool:
        return not self.problem and not self.on("read_only")

    def on(self, name: str) -> bool:
        """Whether a global variable is on now."""
        return self.variables.get(name, "").upper() in ("ON", "1", "YES", "TRUE")

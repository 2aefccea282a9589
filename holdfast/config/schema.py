"""What the configuration files may contain. Unknown keys are errors."""

from __future__ import annotations

import logging
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from holdfast.config.endpoints import EndpointsConfig
from holdfast.config.hooks import HooksConfig
from holdfast.config.settings import SettingsDocument, check, effective, flat, refuse_strangers
from holdfast.config.values import Name, StrictModel
from holdfast.config.vip import Vips
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.tls import Files

Port = Annotated[int, Field(ge=1, le=65535)]


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:7400")
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    if "@" in text:
        raise ValueError("must hold no user and no password: every client of the API sees it")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]
Url = Annotated[str, AfterValidator(_url)]


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        return logging.getLevelNamesMapping()[self.name]


def is_loopback(address: str) -> bool:
    """Whether ``HOST:PORT`` can be reached only from this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class TlsConfig(StrictModel):
    """PEM files: this process's certificate, its key, and the authority that must have signed its peers'
    certificates."""

    ca: Path
    cert: Path
    key: Path

    @property
    def files(self) -> Files:
        return Files(self.ca, self.cert, self.key)


class _Daemon(StrictModel):
    """What agent and manager have in common: an HTTP API.

    :ivar tls: listen with TLS, and require a certificate of every client; needed beyond loopback
    :ivar token_file: holds the bearer token that requests must carry; needed where there is no ``tls``, and required
        beside a certificate where there is
    :ivar hosts: names that requests on loopback may carry as ``Host``, where a proxy passes on those that it gets
    :ivar insecure_token: beyond loopback the token is enough, and crosses the network unencrypted: for those who
        encrypt otherwise
    """

    listen: Address
    tls: TlsConfig | None = None
    token_file: Path | None = None
    insecure_token: bool = False
    hosts: tuple[str, ...] = ()
    log_format: LogFormat = LogFormat.TEXT
    log_level: LogLevel = LogLevel.INFO

    @model_validator(mode="after")
    def _guarded(self) -> _Daemon:
        if self.tls is not None:
            return self
        if not self.insecure_token and not is_loopback(self.listen):
            raise ValueError(
                f"tls is required: {self.listen} is not a loopback address (holdfast certs makes certificates; "
                "insecure_token: true sends the token unencrypted)"
            )
        if self.token_file is None:
            raise ValueError(
                "token_file is required without tls: every user of this host can connect, and so can a web page in a "
                "browser on it"
            )
        return self


class AccountConfig(StrictModel):
    """A database account; the password is in a separate file."""

    user: Name
    password_file: Path


class ServerConfig(StrictModel):
    """The database server on this host.

    :ivar command: argv that runs the server binary, without options
    :ivar option_file: passed to it as ``--defaults-file``
    :ivar binlog_index: the index of its binary logs
    :ivar tls: files that the server itself can read: with them it replicates over TLS, only from servers that this CA
        has signed
    :ivar backup_command: argv that runs ``mariadb-backup``; by default the one beside the server
    """

    flavor: Flavor
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    option_file: Path
    datadir: Path
    socket: Path
    binlog_index: Path
    admin: AccountConfig
    tls: TlsConfig | None = None
    backup_command: tuple[str, ...] = ()


class GateMode(StrEnum):
    """What refuses a primary's port in the kernel once its lease is over. AUTO: nftables, where that can be used."""

    AUTO = "auto"
    OFF = "off"
    NFTABLES = "nftables"


class LeaseConfig(StrictModel):
    """What holds a primary to its lease, besides its agent.

    :ivar keeper: a second process kills the server with its lease, too, and asks the voters while the agent hangs
    :ivar nft_command: argv that runs nft
    :ivar watchdog: the kernel's watchdog device, which resets a host that can no longer end its server
    """

    keeper: bool = True
    gate: GateMode = GateMode.AUTO
    nft_command: Annotated[tuple[str, ...], Field(min_length=1)] = ("nft",)
    watchdog: Path | None = None


class AgentConfig(_Daemon):
    """``holdfast agent --config F``.

    :ivar checks: where it answers load balancers' checks, for any client, unencrypted; None: nowhere
    :ivar state_dir: where the agent keeps its promised term and saved binlog tails
    :ivar replication: the member's own account for replication, valid on every member
    :ivar vip: addresses that are on this host while the server is the open primary
    """

    cluster: Name
    name: Name
    state_dir: Path
    server: ServerConfig
    replication: AccountConfig
    lease: LeaseConfig = LeaseConfig()
    vip: Vips = ()
    checks: Address | None = None


class MemberConfig(StrictModel):
    """A member as the manager knows it: its agent, and where its server takes connections.

    :ivar account: the user with which it replicates, as in its agent's file; "" stands for ``repl_NAME``
    """

    name: Name
    agent: Url
    host: str
    port: Port
    account: Name | Literal[""] = ""


class ClusterConfig(StrictModel):
    """:ivar settings: the initial settings; the store keeps what an operator changes later
    :ivar members: the initial members
    """

    name: Name
    settings: SettingsDocument = SettingsDocument()
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=1, max_length=7)]
    endpoints: EndpointsConfig = EndpointsConfig()
    hooks: HooksConfig = HooksConfig()

    @model_validator(mode="after")
    def _distinct(self) -> ClusterConfig:
        _no_twins("members", "name", [member.name for member in self.members])
        _no_twins("members", "agent", [member.agent for member in self.members])
        _no_twins("members", "host:port", [f"{m.host}:{m.port}" for m in self.members])
        names = [member.name for member in self.members]
        if strangers := sorted(set(self.endpoints.checks) - set(names)):
            raise ValueError(f"endpoints.checks: there is no member {strangers[0]!r}")
        given = flat(self.settings)
        try:
            refuse_strangers(given, names)
            check(effective([given], names), names)
        except BadInput as error:
            raise ValueError(f"settings: {error}") from None
        return self


class StoreTlsConfig(StrictModel):
    """:ivar ca: must have signed etcd's certificates
    :ivar cert: shown to etcd, where it asks for one; with ``key``
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> StoreTlsConfig:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self


class StoreConfig(StrictModel):
    """Where the clusters' records are: a SQLite file (written ``store: PATH``), or etcd.

    :ivar endpoints: URLs of etcd's members
    :ivar prefix: of all keys there; the same for all managers of a cluster
    """

    path: Path | None = None
    endpoints: tuple[Url, ...] = ()
    prefix: Annotated[str, Field(pattern=r"^/([A-Za-z0-9_.-]+/)*$")] = "/holdfast/"
    tls: StoreTlsConfig | None = None
    user: Name | Literal[""] = ""
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> StoreConfig:
        if (self.path is None) == (not self.endpoints):
            raise ValueError(
                "must be the path of a SQLite file, or a mapping with endpoints of etcd"
            )
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file go together")
        for url in self.endpoints:
            if self.tls is not None and not url.startswith("https://"):
                raise ValueError(f"endpoints: tls is set: {url} must be https://…")
        return self


def _store(value: object) -> object:
    return {"path": value} if isinstance(value, str | Path) else value


class ManagerConfig(_Daemon):
    """``holdfast manager --config F``.

    :ivar name: by which the other managers know it; "" stands for this host's name
    :ivar url: where operators and other managers reach it; "" stands for ``listen``
    :ivar host: on which it runs, written as ``host`` of the member there is written; "" stands for that of ``url``
    :ivar agent_token_file: the bearer token of the agents
    """

    store: Annotated[StoreConfig, BeforeValidator(_store)]
    name: Name | Literal[""] = ""
    url: Url | Literal[""] = ""
    host: str = ""
    agent_token_file: Path | None = None
    clusters: Annotated[tuple[ClusterConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> ManagerConfig:
        _no_twins("clusters", "name", [cluster.name for cluster in self.clusters])
        return self

    @model_validator(mode="after")
    def _agents_by_tls(self) -> ManagerConfig:
        """Refuse a token without TLS: it must not cross the network in clear because an ``s`` was forgotten."""
        for cluster in self.clusters:
            for member in cluster.members:
                if self.tls is not None and not member.agent.startswith("https://"):
                    raise ValueError(f"agent of {member.name}: tls is set: must be https://…")
        return self


def _no_twins(where: str, key: str, values: list[str]) -> None:
    twins = {value for value in values if values.count(value) > 1}
    if twins:
        raise ValueError(f"{where}: {key} {sorted(twins)[0]!r} is used twice")

"""A cluster of hosts on this machine, and all the harm that can come to hosts and their network.

    lab = Lab.create(folder, Flavor.MARIADB)
    try:
        lab.up()
        lab.cut(lab.primary(), "all")
        lab.wait_until(lambda status: status["writable"], 10)
        lab.heal()
        lab.wait_whole(60)
    finally:
        lab.down(remove=True)

Hosts are ``m1``… (server and agent), ``manager1``…, ``etcd1``… and ``client``, where nothing runs by itself. Who harms
a host names it; ``"m1,m2"`` is a group, ``"all"`` is every host (but the one on the other side).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.sandbox.accounts import Accounts
from holdfast.sandbox.cluster import Status, quiet
from holdfast.sandbox.spec import MemberSpec
from holdfast.server.base import Account

WHOLE_SECONDS = 60.0

Say = Callable[[str], None]


class Lab:
    """A lab in a folder; made with `create` or found with `open`. Needs root.

    Several threads may use one, and other processes may `open` it at the same time.

    :ivar accounts: ``accounts.app`` is the clients' account
    """

    accounts: Accounts

    @classmethod
    def create(
        cls,
        folder: Path,
        flavor: Flavor,
        members: int = 3,
        managers: int = 3,
        binary: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        gate: bool = True,
        say: Say = quiet,
    ) -> Lab:
        """The lab in this folder, made now unless it is there, made in the same way. Starts nothing.

        :param managers: with more than one there are as many etcd nodes; one keeps its record in a file of its own
        :param settings: of the managers' file, by dotted key
        :param gate: agents have the kernel close the server's port when the lease ends
        :raises BadInput: it was made in another way, or the folder holds something else
        :raises Refused: root, ``ip`` or ``nft`` is missing; nothing was made
        """
        raise NotImplementedError

    @classmethod
    def open(cls, folder: Path, say: Say = quiet) -> Lab:
        """:raises BadInput: there is none"""
        raise NotImplementedError

    # -- the whole ------------------------------------------------------------------------------

    def up(self, seconds: float = WHOLE_SECONDS) -> Status:
        """Make the hosts, start everything, and return the status once the cluster is whole.

        :raises Refused: it runs already, or something ended: holds the end of its log
        :raises DeadlinePassed: not whole in time; everything is left running, to be looked at
        """
        raise NotImplementedError

    def down(self, remove: bool = False) -> None:
        """Undo every fault, end every process, and take away every namespace, mount, loop device and cgroup.

        Whatever was made only in part, or is gone already, is no error.

        :param remove: the folder as well
        """
        raise NotImplementedError

    def hosts(self) -> tuple[str, ...]:
        raise NotImplementedError

    def address(self, host: str) -> str:
        """Its IPv4 address; its port is ``port_of``'s."""
        raise NotImplementedError

    def members(self) -> tuple[MemberSpec, ...]:
        """``name``, ``host`` (an address), ``port`` of each server, and where its files are."""
        raise NotImplementedError

    # -- looking: from beside the bridge, where no cut reaches -------------------------------------

    def status(self) -> Status:
        """What the leading manager says, or one that answers when none leads.

        :raises Unreachable: no manager answers
        """
        raise NotImplementedError

    def leader(self) -> str:
        """The name of the leading manager, as it says itself; "" when none leads."""
        raise NotImplementedError

    def primary(self) -> str:
        """The primary that the record names.

        :raises Refused: there is none yet
        """
        raise NotImplementedError

    def wait_until(
        self, predicate: Callable[[Status], bool], seconds: float, what: str = "what was expected"
    ) -> Status:
        """:raises DeadlinePassed: says what the last status was"""
        raise NotImplementedError

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> Status:
        """:raises DeadlinePassed: holds the reason, and the ends of the logs"""
        raise NotImplementedError

    def logs(self, lines: int = 6) -> str:
        """The ends of all logs."""
        raise NotImplementedError

    # -- being on a host --------------------------------------------------------------------------

    @contextmanager
    def inside(self, host: str = "") -> Iterator[None]:
        """This thread, and it alone, is in the host's network within the block.

        A socket that is made inside stays there for good, whoever uses it afterwards. Without a host: beside the
        bridge, where no cut, loss or delay reaches.
        """
        raise NotImplementedError

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """``argv`` to be run on that host; its process is the host's then, and shares its fate."""
        raise NotImplementedError

    def connect(
        self, member: str, account: Account | None = None, at: str = "client", **options: Any
    ) -> pymysql.Connection[Any]:
        """A connection from a host to a member's server: as ``app``, unless told otherwise.

        The admin account goes over the socket. ``options`` are pymysql's.
        """
        raise NotImplementedError

    # -- the network ------------------------------------------------------------------------------

    def cut(self, a: str, b: str, one_way: bool = False) -> None:
        """Drop every frame from a to b, and back unless ``one_way``."""
        raise NotImplementedError

    def loss(self, a: str, b: str, share: float, one_way: bool = False) -> None:
        """Drop frames by chance: ``share`` of 0 to 1. Takes the place of an earlier loss between them."""
        raise NotImplementedError

    def delay(self, a: str, b: str, ms: float, jitter_ms: float = 0.0) -> None:
        """Hold back what goes from a to b, and back, each way for ``ms`` and up to ``jitter_ms`` more."""
        raise NotImplementedError

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo cuts, losses and delays between a and b, both ways; all of a's without b; all without a."""
        raise NotImplementedError

    # -- hosts that hang --------------------------------------------------------------------------

    def freeze(self, host: str) -> None:
        """All processes of the host stand still, from one moment on."""
        raise NotImplementedError

    def thaw(self, host: str) -> None:
        raise NotImplementedError

    def freeze_server(self, member: str) -> None:
        """SIGSTOP to the server alone.

        :raises Refused: it does not run
        """
        raise NotImplementedError

    def thaw_server(self, member: str) -> None:
        """SIGCONT; nothing where it does not run."""
        raise NotImplementedError

    # -- disks: each member has one, with its data, binary logs, error log and its agent's state ----

    def disk_full(self, host: str) -> None:
        """Leave nothing of the member's disk."""
        raise NotImplementedError

    def disk_free(self, host: str) -> None:
        raise NotImplementedError

    def disk_stall(self, host: str) -> None:
        """Every write and fsync to the member's disk hangs in the kernel: not even SIGKILL ends who waits there."""
        raise NotImplementedError

    def disk_go(self, host: str) -> None:
        raise NotImplementedError

    # -- processes that die: killing what does not run is Refused ------------------------------------

    def kill_server(self, member: str) -> None:
        """SIGKILL; returns as soon as it is sent."""
        raise NotImplementedError

    def kill_agent(self, member: str) -> None:
        raise NotImplementedError

    def start_agent(self, member: str) -> None:
        raise NotImplementedError

    def kill_manager(self, manager: str) -> None:
        raise NotImplementedError

    def stop_manager(self, manager: str) -> None:
        """SIGTERM: it may hand leadership away. Returns when it has ended."""
        raise NotImplementedError

    def start_manager(self, manager: str) -> None:
        raise NotImplementedError

    def kill_etcd(self, node: str) -> None:
        raise NotImplementedError

    def start_etcd(self, node: str) -> None:
        raise NotImplementedError

    def kill_host(self, host: str) -> None:
        """SIGKILL to every process of the host at once, as when its power fails; its disk keeps what was written."""
        raise NotImplementedError

    def start_host(self, host: str) -> None:
        """Start the host's own daemons again: all that do not run."""
        raise NotImplementedError

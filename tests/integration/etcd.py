"""Real etcd on loopback, for tests: one node, or three."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.sandbox.servers import trees
from holdfast.store.gateway import Etcd, Gateway
from tests.integration.ports import keep_ports

READY_SECONDS = 20.0


@dataclass
class Node:
    """:ivar options: in addition to those of every node"""

    name: str
    folder: Path
    client: int
    peer: int
    scheme: str = "http"
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.client}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer}"

    def start(self, cluster: str) -> None:
        command = (
            *trees.companion("etcd"),
            f"--name={self.name}",
            f"--data-dir={self.folder / self.name}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={cluster}",
            *self.options,
        )
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def send(self, number: int) -> None:
        assert self.process
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class EtcdCluster:
    nodes: list[Node]
    etcd: Etcd
    prefixes: int = field(default=0)

    @property
    def initial(self) -> str:
        return ",".join(f"{node.name}={node.peer_url}" for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start(self.initial)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        gateway = Gateway(self.etcd)
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                gateway.ask("kv/range", {"key": "AA=="})
                break
            except Exception:
                assert time.monotonic() < end, "etcd does not begin to answer"
                time.sleep(0.05)
        gateway.close()

    def fresh(self) -> Etcd:
        """The same etcd with an unused prefix."""
        self.prefixes += 1
        old = self.etcd
        return Etcd(
            old.endpoints, f"/t{self.prefixes}/", old.ca, old.cert, old.key, old.user, old.password
        )

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


def make(
    folder: Path, count: int = 1, options: Sequence[str] = (), ca: Path | None = None
) -> EtcdCluster:
    """Nodes that were not started yet.

    :param ca: by which clients verify them; None for plain HTTP
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = keep_ports(2 * count)
    scheme = "https" if ca else "http"
    nodes = [
        Node(f"n{i}", folder, ports[2 * i], ports[2 * i + 1], scheme, tuple(options))
        for i in range(count)
    ]
    return EtcdCluster(nodes, Etcd(tuple(node.url for node in nodes), ca=ca))


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT

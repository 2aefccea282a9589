"""Delay: a process beside the bridge that holds frames back, started when it is first needed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import DeadlinePassed, Refused
from holdfast.sandbox.lab.links.faults import Link, Pair
from holdfast.sandbox.lab.links.network import Network
from holdfast.sandbox.lab.plan import LabPlan
from holdfast.sandbox.servers.daemons import tail

START_SECONDS = 5.0
ANSWER_SECONDS = 2.0


class Relay:
    def __init__(self, plan: LabPlan, network: Network) -> None:
        self._plan = plan
        self._network = network

    def set(self, links: Mapping[Pair, Link]) -> None:
        """Make the relay delay these links, and no others.

        :raises Refused: it cannot be started; holds the end of its log
        """
        plan = self._plan
        number = {host: int(plan.address(host).rpartition(".")[2]) for host in plan.hosts}
        late = [
            [number[source], number[target], link.delay_ms, link.jitter_ms]
            for (source, target), link in links.items()
        ]
        told = {"ports": [[number[host], host] for host in plan.hosts], "late": late}
        if self._tell(told) or not links:
            return
        self._start()
        end = time.monotonic() + START_SECONDS
        while not self._tell(told):
            if time.monotonic() > end:
                raise Refused(f"the relay does not start:\n{tail(self._log)}")
            time.sleep(0.01)

    def _tell(self, told: Mapping[str, object]) -> bool:
        """Send the links to the relay; returns whether it runs and has accepted them."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
                control.settimeout(ANSWER_SECONDS)
                control.connect(str(self._socket))
                control.send(json.dumps(told).encode())
                return control.recv(16) == b"ok"
        except TimeoutError:
            raise DeadlinePassed("telling the relay who is late", ANSWER_SECONDS) from None
        except OSError:
            return False

    def _start(self) -> None:
        program = [sys.executable, "-m", "holdfast.sandbox.lab.links.relaying", str(self._socket)]
        enter = ["nsenter", f"--net={self._network.path()}", "--", "setsid", "--fork"]
        with self._log.open("ab") as output:
            subprocess.run(
                [*enter, *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )

    @property
    def _socket(self) -> Path:
        return self._plan.sockets / "relay.sock"

    @property
    def _log(self) -> Path:
        return self._plan.dir / "logs" / "relay.log"

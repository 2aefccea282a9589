"""Queries the managers of a lab, from beside the bridge: which one leads, and its status."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Any

import httpx

from holdfast.errors import Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.lab.links.network import Network
from holdfast.sandbox.lab.plan import MANAGER_PORT, LabPlan
from holdfast.sandbox.local.spec import CLUSTER

ANSWER_SECONDS = 1.0
"""A frozen manager must not delay the question to the next one."""

Status = dict[str, Any]


class Asking:
    def __init__(self, plan: LabPlan, network: Network) -> None:
        self._plan = plan
        self._network = network
        self._clients: dict[str, ManagerClient] = {}
        self._http: httpx.Client | None = None
        self._lock = Lock()
        self._last = plan.managers[0]

    def client(self, manager: str) -> ManagerClient:
        with self._lock:
            if manager not in self._clients:
                self._clients[manager] = ManagerClient(self._url(manager), self._token())
            return self._clients[manager]

    def status(self) -> tuple[str, Status]:
        """The manager that leads, and its status.

        :raises Unreachable: none does; holds each manager's answer
        """
        said = []
        for manager in self._in_turn():
            try:
                status = self._ask(manager)
            except (httpx.HTTPError, ValueError) as error:
                said.append(f"{manager}: {error or type(error).__name__}")
                continue
            if isinstance(status, dict):
                self._last = manager
                return manager, status
            said.append(f"{manager}: {status}")
        raise Unreachable(f"no manager leads ({'; '.join(said)})")

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
            if self._http is not None:
                self._http.close()
                self._http = None

    def _ask(self, manager: str) -> Status | str:
        """The manager's status, or what it says of the leadership where it does not lead."""
        url = f"{self._url(manager)}/v1/clusters/{CLUSTER}"
        headers = {"Authorization": f"Bearer {self._token()}"}
        with self._lock:
            http = self._http = self._http or httpx.Client(timeout=ANSWER_SECONDS, trust_env=False)
        with self._network.inside():
            leader = http.get(f"{url}/leader", headers=headers).raise_for_status().json()
            if not leader["leads"]:
                return f"does not lead, {leader['name'] or 'nobody'} does"
            return dict(http.get(f"{url}/status", headers=headers).raise_for_status().json())

    def _in_turn(self) -> Iterator[str]:
        """The manager that led at the last query comes first."""
        first = self._last
        yield first
        yield from (name for name in self._plan.managers if name != first)

    def _url(self, manager: str) -> str:
        return f"http://{self._plan.address(manager)}:{MANAGER_PORT}"

    def _token(self) -> str:
        try:
            return self._plan.token_file.read_text().strip()
        except FileNotFoundError:
            raise Unreachable(f"the lab in {self._plan.dir} was never started") from None

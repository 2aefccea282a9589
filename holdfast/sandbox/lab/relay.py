"""Delay: a process beside the bridge that holds frames back."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import Refused
from holdfast.sandbox.lab.faults import Link, Pair
from holdfast.sandbox.lab.network import Network
from holdfast.sandbox.lab.plan import Plan


class Relay:
    def __init__(self, plan: Plan, network: Network) -> None:
        self._plan = plan
        self._network = network

    def set(self, links: Mapping[Pair, Link]) -> None:
        if links:
            raise Refused("delay is not there yet")

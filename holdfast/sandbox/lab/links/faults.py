"""Faults of the network: which frames are dropped or held back, as a table, and as rules for the kernel.

A frame is examined where it would cross the bridge, so hosts notice only that it does not arrive; frames that ask for
addresses (ARP) are dropped, too. Delayed frames leave the bridge through the relay's port.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.errors import BadInput
from holdfast.sandbox import saved

RELAY_PORT = "relay"
"""The device through which the relay gets frames."""
_CHANCES = 10_000

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Link:
    """The fault in one direction, from one host to another.

    :ivar loss: share of frames that is dropped, 0 to 1
    """

    cut: bool = False
    loss: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0

    @property
    def sound(self) -> bool:
        return self == Link()

    @property
    def relayed(self) -> bool:
        return not self.cut and bool(self.delay_ms or self.jitter_ms)

    def __str__(self) -> str:
        parts = ["cut"] if self.cut else []
        if self.loss:
            parts.append(f"loses {self.loss:.0%}")
        if self.delay_ms or self.jitter_ms:
            more = f" to {self.delay_ms + self.jitter_ms:g}" if self.jitter_ms else ""
            parts.append(f"{self.delay_ms:g}{more} ms late")
        return ", ".join(parts)


Links = Mapping[Pair, Link]


def check_share(share: float) -> float:
    """:raises BadInput: ``share`` is not between 0 and 1"""
    if not 0 <= share <= 1:
        raise BadInput("share", f"must be from 0 to 1, not {share}")
    return share


def check_delay(ms: float, jitter_ms: float) -> None:
    """:raises BadInput: one is negative or too long"""
    if not (0 <= ms <= 60_000 and 0 <= jitter_ms <= 60_000):
        raise BadInput("ms", "must be from 0 to 60000")


def healed(links: Links, between: Iterable[Pair]) -> dict[Pair, Link]:
    gone = set(between)
    return {pair: link for pair, link in links.items() if pair not in gone}


def ruleset(links: Links, addresses: Mapping[str, str]) -> str:
    """All rules that these links need; they replace the former ones in one step."""
    bridge = ["type filter hook forward priority 0; policy accept;"]
    ports: dict[str, list[str]] = {}
    for (source, target), link in sorted(links.items()):
        between = f'iifname "{source}" oifname "{target}"'
        if link.cut:
            bridge.append(f"{between} counter drop")
        elif link.relayed:
            to = f"ip daddr {addresses[target]}"
            rules = ports.setdefault(source, [])
            if link.loss:
                rules.append(f"{to} {_by_chance(link.loss)} counter drop")
            rules.append(f'{to} fwd to "{RELAY_PORT}"')
        elif link.loss:
            bridge.append(f"{between} {_by_chance(link.loss)} counter drop")
    chains = {
        port: [f'type filter hook ingress device "{port}" priority 0; policy accept;', *rules]
        for port, rules in ports.items()
    }
    return _table("bridge", {"forward": bridge}) + _table("netdev", chains)


def read_links(path: Path) -> dict[Pair, Link]:
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return {(row.pop("source"), row.pop("target")): Link(**row) for row in rows}


def write_links(path: Path, links: Links) -> None:
    rows = [
        {"source": source, "target": target, **asdict(link)}
        for (source, target), link in sorted(links.items())
    ]
    saved.write(path, rows)


def _by_chance(share: float) -> str:
    return f"numgen random mod {_CHANCES} < {round(share * _CHANCES)}"


def _table(family: str, chains: Mapping[str, list[str]]) -> str:
    # named once so that there is one to delete
    lines = [f"table {family} holdfast_lab", f"delete table {family} holdfast_lab"]
    lines.append(f"table {family} holdfast_lab {{")
    for name, rules in chains.items():
        lines += [f" chain {name} {{", *(f"  {rule}" for rule in rules), " }"]
    return "\n".join([*lines, "}", ""])

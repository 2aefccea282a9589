"""The cluster as a person configured it."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.quorum import Durability


@dataclass(frozen=True, slots=True)
class Member:
    """:ivar host, port: where its server takes connections"""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """:ivar members: in the order in which they are preferred where nothing else decides"""

    name: str
    members: tuple[Member, ...]
    durability: Durability = Durability.MAJORITY

    def member(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def others(self, name: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.name != name)

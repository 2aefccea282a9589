"""The cluster as an operator configured it."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.core.settings import MemberSettings, Settings


@dataclass(frozen=True, slots=True)
class Member:
    """:ivar host, port: where the member's server accepts connections
    :ivar agent: URL of its agent
    :ivar account: its own replication account; the same as in the agent's configuration
    """

    name: str
    host: str
    port: int
    agent: str = ""
    account: str = ""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """:ivar members: in order of preference, where nothing else decides"""

    name: str
    members: tuple[Member, ...]
    settings: Settings = field(default_factory=Settings)

    def account(self, name: str) -> str:
        """The replication account of a member, present or former."""
        found = [member.account for member in self.members if member.name == name]
        return (found and found[0]) or f"repl_{name}"

    def setting(self, name: str) -> MemberSettings:
        return self.settings.member(name)

    def has(self, name: str) -> bool:
        return any(member.name == name for member in self.members)

    def member(self, name: str) -> Member:
        """The member of that name. Expects that it exists."""
        return next(member for member in self.members if member.name == name)

    def others(self, name: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.name != name)

"""The cluster that operators want: what the manager's file begins it with, and what was changed since."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from holdfast.config.schema import ClusterConfig
from holdfast.config.settings import (
    Layer,
    Value,
    check,
    defaults,
    effective,
    flat,
    keys,
    known_key,
    layer_of_pairs,
    meaning,
    member_key,
    price,
    refuse_strangers,
    shown,
)
from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused
from holdfast.store.base import Store, StoredSettings

MOST_MEMBERS = 7


@dataclass(frozen=True, slots=True)
class Given:
    """What the manager's file says of one cluster."""

    name: str
    members: tuple[Member, ...]
    settings: Layer = field(default_factory=dict)

    @classmethod
    def by(cls, config: ClusterConfig) -> Given:
        members = (
            Member(each.name, each.host, each.port, each.agent, each.account or f"repl_{each.name}")
            for each in config.members
        )
        return cls(config.name, tuple(members), flat(config.settings))


@dataclass(frozen=True, slots=True)
class Changed:
    """What the store holds of operators' changes.

    :ivar settings: flat, by dotted key
    :ivar added: members that the file does not have, or has with another address
    :ivar removed: members that the file has and that were removed
    """

    settings: Layer = field(default_factory=dict)
    added: tuple[Member, ...] = ()
    removed: frozenset[str] = frozenset()

    @classmethod
    def parsed(cls, document: Mapping[str, Any]) -> Changed:
        """:raises Refused: it is not what :meth:`document` writes"""
        try:
            members = document.get("members", {})
            return cls(
                dict(document.get("settings", {})),
                tuple(Member(name, **each) for name, each in members.get("added", {}).items()),
                frozenset(members.get("removed", ())),
            )
        except (AttributeError, TypeError) as error:
            raise Refused(f"the stored settings are not readable ({error}): restore them") from None

    def document(self) -> dict[str, Any]:
        added = {each.name: asdict(each) for each in self.added}
        for each in added.values():
            del each["name"]
        return {
            "settings": dict(self.settings),
            "members": {"added": added, "removed": sorted(self.removed)},
        }

    def with_member(self, given: Given, member: Member) -> Changed:
        rest = tuple(each for each in self.added if each.name != member.name)
        known = member in given.members
        return replace(
            self,
            added=rest if known else (*rest, member),
            removed=self.removed - {member.name},
        )

    def without_member(self, given: Given, name: str) -> Changed:
        """Also without the settings for the member: if it is added again, it begins anew."""
        in_file = any(each.name == name for each in given.members)
        return Changed(
            {key: value for key, value in self.settings.items() if not _is_of(key, name)},
            tuple(each for each in self.added if each.name != name),
            self.removed | {name} if in_file else self.removed,
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One setting, as operators see it.

    :ivar source: default, file or store
    """

    key: str
    value: Value
    text: str
    source: str
    meaning: str


class Configured:
    """The effective configuration of one cluster; every change goes through the store's compare-and-set.

    :ivar cluster: in force now
    """

    def __init__(self, given: Given, store: Store) -> None:
        self.given = given
        self.changed = Changed()
        self.version = 0
        self.cluster = _cluster(given, self.changed)
        self._store = store

    async def load(self) -> bool:
        """Take over what the store holds; returns whether the cluster differs from before.

        :raises Refused: it cannot be read
        """
        stored = await asyncio.to_thread(self._store.settings, self.given.name)
        return self._accept(stored, Changed.parsed(stored.document))

    def misfit(self) -> str:
        """What does not fit together, or "": the file may have changed after the store was written."""
        try:
            check(self.cluster.settings, _names(self.cluster))
        except BadInput as error:
            return str(error)
        return ""

    async def save(self, changed: Changed) -> None:
        """Check and store.

        :raises BadInput: it does not fit together; nothing was changed
        :raises Conflict: another manager has changed the settings meanwhile
        """
        cluster = _cluster(self.given, changed)
        check(cluster.settings, _names(cluster))
        document = changed.document()
        name, expected = self.given.name, self.version
        version = await asyncio.to_thread(self._store.replace_settings, name, document, expected)
        self._accept(StoredSettings(document, version), changed)

    async def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what the store held before it was lost: it was checked then.

        :raises Conflict: another manager has changed the settings meanwhile
        """
        changed = Changed.parsed(document)
        name, expected = self.given.name, self.version
        version = await asyncio.to_thread(self._store.replace_settings, name, document, expected)
        self._accept(StoredSettings(document, version), changed)

    def with_settings(
        self, pairs: Mapping[str, Any], unset: Sequence[str], flavor: Flavor | None
    ) -> Changed:
        """What is to be saved for these values, as operators write them, without the keys of ``unset``.

        :raises BadInput: naming the key
        """
        names = _names(self.cluster)
        found = layer_of_pairs(pairs)
        for key in unset:
            known_key(key)
        refuse_strangers([*found, *unset], names)
        acks = found.get("ack_count")
        if flavor is Flavor.MARIADB and isinstance(acks, int) and acks > 1:
            raise BadInput(
                "ack_count", f"MariaDB can wait for one acknowledgement only, not {acks}"
            )
        kept = {key: value for key, value in self.changed.settings.items() if key not in unset}
        return replace(self.changed, settings=kept | found)

    def items(self) -> list[Item]:
        names = _names(self.cluster)
        by_source = {
            "default": defaults(names),
            "file": self.given.settings,
            "store": self.changed.settings,
        }
        found = []
        for key in keys(names):
            source = next(each for each in ("store", "file", "default") if key in by_source[each])
            value = by_source[source][key]
            found.append(Item(key, value, shown(key, value), source, meaning(key)))
        return found

    def _accept(self, stored: StoredSettings, changed: Changed) -> bool:
        before = self.cluster
        self.cluster = _cluster(self.given, changed)
        self.changed, self.version = changed, stored.version
        return self.cluster != before


def prices(pairs: Mapping[str, Any]) -> list[str]:
    """What the chosen values give up, a sentence each."""
    told = [(key, price(key, value)) for key, value in layer_of_pairs(pairs).items()]
    return [f"{key}: {text}" for key, text in told if text]


def _cluster(given: Given, changed: Changed) -> Cluster:
    added = {each.name: each for each in changed.added}
    members = [
        added.pop(each.name, each) for each in given.members if each.name not in changed.removed
    ]
    members += added.values()
    names = [each.name for each in members]
    settings = effective([given.settings, changed.settings], names)
    return Cluster(given.name, tuple(members), settings)


def _names(cluster: Cluster) -> list[str]:
    return [each.name for each in cluster.members]


def _is_of(key: str, name: str) -> bool:
    return key.startswith("members.") and member_key(key)[0] == name

"""How etcd's gateway wants things said: bytes as base64, 64-bit numbers as text."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it stands in etcd.

    :ivar version: how often it was put since it was made
    :ivar created: the revision that made it
    :ivar lease: with which it goes; 0 for none
    """

    key: str
    value: str
    version: int
    created: int
    lease: int = 0


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")


def after(prefix: str) -> str:
    """The end of the range of all keys that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def get(key: str) -> Body:
    """Linearizable, as is any range that does not say otherwise."""
    return {"key": b64(key)}


def get_all(prefix: str) -> Body:
    return {"key": b64(prefix), "range_end": b64(after(prefix))}


def get_last(begin: str, end: str, most: int) -> Body:
    """Of the keys from ``begin`` up to, and without, ``end``: the last, in falling order."""
    descending = {"sort_order": "DESCEND", "sort_target": "KEY", "limit": str(most)}
    return {"key": b64(begin), "range_end": b64(end), **descending}


def remove_below(begin: str, end: str) -> Body:
    """An operation of a transaction: the keys from ``begin`` up to, and without, ``end`` go."""
    return {"request_delete_range": {"key": b64(begin), "range_end": b64(end)}}


def put(key: str, value: str, lease: int = 0) -> Body:
    return {"key": b64(key), "value": b64(value), "lease": str(lease)}


def version_is(key: str, version: int) -> Body:
    """0: there is none."""
    return {"target": "VERSION", "key": b64(key), "version": str(version)}


def created_at(key: str, revision: int) -> Body:
    """0: there is none."""
    return {"target": "CREATE", "key": b64(key), "create_revision": str(revision)}


def txn(compare: Sequence[Body], then: Sequence[Body], otherwise: Sequence[Body] = ()) -> Body:
    """:param then: each is {"request_put": …} or the like, done if all of ``compare`` holds"""
    return {"compare": list(compare), "success": list(then), "failure": list(otherwise)}


def kvs(ranged: Mapping[str, Any]) -> list[KeyValue]:
    """What a range found. Fields that are zero or empty are left out by the gateway."""
    return [
        KeyValue(
            text(each["key"]),
            text(each.get("value", "")),
            int(each.get("version", 0)),
            int(each.get("create_revision", 0)),
            int(each.get("lease", 0)),
        )
        for each in ranged.get("kvs", ())
    ]


def ranged(reply: Mapping[str, Any], index: int) -> list[KeyValue]:
    """What the ``index``-th operation of a transaction, a range, found."""
    return kvs(reply["responses"][index].get("response_range", {}))


def revision(reply: Mapping[str, Any]) -> int:
    return int(reply["header"]["revision"])

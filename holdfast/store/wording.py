"""The formats of etcd's gateway: bytes as base64, 64-bit numbers as text."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as etcd has it.

    :ivar version: how often it was put since it was created
    :ivar created: the revision that created it
    :ivar lease: the lease with which it disappears; 0 for none
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
    """The last of the keys from ``begin`` up to, but without, ``end``, in descending order."""
    descending = {"sort_order": "DESCEND", "sort_target": "KEY", "limit": str(most)}
    return {"key": b64(begin), "range_end": b64(end), **descending}


def remove_below(begin: str, end: str) -> Body:
    """An operation of a transaction: remove the keys from ``begin`` up to, but without, ``end``."""
    return {"request_delete_range": {"key": b64(begin), "range_end": b64(end)}}


def put(key: str, value: str, lease: int = 0) -> Body:
    return {"key": b64(key), "value": b64(value), "lease": str(lease)}


def version_is(key: str, version: int) -> Body:
    """A condition; 0: the key does not exist."""
    return {"target": "VERSION", "key": b64(key), "version": str(version)}


def created_at(key: str, revision: int) -> Body:
    """A condition; 0: the key does not exist."""
    return {"target": "CREATE", "key": b64(key), "create_revision": str(revision)}


def txn(compare: Sequence[Body], then: Sequence[Body], otherwise: Sequence[Body] = ()) -> Body:
    """:param then: each is {"request_put": …} or the like, carried out if all of ``compare`` holds"""
    return {"compare": list(compare), "success": list(then), "failure": list(otherwise)}


def kvs(ranged: Mapping[str, Any]) -> list[KeyValue]:
    """What a range found. The gateway leaves out fields that are zero or empty."""
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

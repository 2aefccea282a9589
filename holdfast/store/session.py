"""What a manager holds in etcd as long as it lives: a lease, and with it the clusters that it leads.

A leading manager's key disappears with its lease: ``LEASE_SECONDS`` after etcd last heard of the manager, another may
take the key. This alone does not show the first manager that it no longer leads. It may have been stopped; and etcd's
own leading member, if it was stopped and resumes, revokes leases that were renewed elsewhere meanwhile (etcd issue
15247, up to 3.4.30 and 3.5.12). So:

* every ``BEAT_SECONDS`` the manager reads, linearizably, that the key is still the one that it made. It believes that
  it leads for ``BELIEF_SECONDS`` after it sent that read, no longer (``Leadership.until``);
* a manager that takes a key which its holder did not hand on knows that the holder may believe that it leads for as
  long (``Leadership.alone_from``).

The beat has a thread of its own: so neither a busy event loop nor a full pool of threads costs the leadership.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.store.base import LeadershipCandidate
from holdfast.store.gateway import Gateway
from holdfast.store.wording import (
    Body,
    KeyValue,
    b64,
    created_at,
    get,
    get_all,
    kvs,
    put,
    ranged,
    revision,
    txn,
)

LEASE_SECONDS = 2
"""The minimum that etcd grants with its default election time-out of 1 s."""
BEAT_SECONDS = 0.3
BELIEF_SECONDS = 1.2
MARGIN_SECONDS = 0.1
"""Clocks differ in speed, and a thread may have to wait before it runs."""
BEAT_CALL_SECONDS = 0.9
"""For one call of a beat: enough for two endpoints that hang."""
LEAVE_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Held:
    """A leadership.

    :ivar created: the revision at which the key was created: no other leadership has the same
    """

    cluster: str
    key: str
    created: int
    until: float
    alone_from: float
    lost: Callable[[], None]
    over: bool = False
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def confirmed(self, until: float) -> None:
        with self._ending:
            if not self.over:
                self.until = until

    def end(self) -> bool:
        """Whether it has just ended."""
        with self._ending:
            ends, self.over, self.until = not self.over, True, -math.inf
        return ends


class Keys:
    """The keys in etcd."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def of(self, cluster: str, what: str) -> str:
        """:param what: record, settings, leader, left (the last leading manager handed it on), managers/NAME"""
        return f"{self.prefix}{cluster}/{what}"

    def cluster(self, key: str) -> str:
        return key.removeprefix(self.prefix).partition("/")[0]


class EtcdSession:
    """One lease, renewed by a thread that begins with the first campaign."""

    def __init__(self, gateway: Gateway, keys: Keys) -> None:
        self._gateway = gateway
        self._clock = gateway.clock
        self._keys = keys
        self._lease = 0
        self._lease_until = 0.0
        self._announced: set[str] = set()
        self._held: dict[str, Held] = {}
        self._to_give_back: list[Held] = []
        # a beat waits neither for etcd nor for a thread that does: _changing is never held across a call
        self._changing = threading.Lock()
        self._granting = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def campaign(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None]
    ) -> Held | None:
        """:raises HoldfastError: by consequence; if it led nevertheless, it will not for long"""
        key = self._keys.of(cluster, "leader")
        lease = self._ensured(cluster, who)
        found = kvs(self._gateway.ask("kv/range", get(key)))
        if found and not self._is_leftover(cluster, found[0]):
            return None
        left = self._keys.of(cluster, "left")
        sent = self._clock.monotonic()
        reply = self._with_lease(
            txn(
                [created_at(key, 0)],
                [
                    {"request_range": get(left)},
                    {"request_put": put(key, json.dumps(asdict(who)), lease)},
                    {"request_delete_range": {"key": b64(left)}},
                ],
            )
        )
        if not reply.get("succeeded"):
            return None
        handed_on = bool(ranged(reply, 0))
        alone_from = -math.inf if handed_on else self._clock.monotonic() + BELIEF_SECONDS
        held = Held(cluster, key, revision(reply), self._believed(sent), alone_from, lost)
        with self._changing:
            self._held[cluster] = held
        return held

    def leave(self, held: Held) -> None:
        """Hand the leadership on at once; if that fails now, it is tried again with every beat."""
        held.end()
        with self._changing:
            if self._held.get(held.cluster) is held:
                del self._held[held.cluster]
            self._to_give_back.append(held)
        try:
            self._give_back(held, self._clock.monotonic() + LEAVE_SECONDS)
        except HoldfastError:
            self._wake.set()

    def held(self, cluster: str) -> Held | None:
        return self._held.get(cluster)

    def wake(self) -> None:
        """Check at once whether the leadership is still held."""
        if self._held:
            self._wake.set()

    def candidates(self, cluster: str) -> list[KeyValue]:
        return kvs(self._gateway.ask("kv/range", get_all(self._keys.of(cluster, "managers/"))))

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        if self._thread:
            self._thread.join()
        for held in list(self._held.values()):
            held.end()
        if self._lease:
            try:
                end = self._clock.monotonic() + LEAVE_SECONDS
                self._gateway.ask("lease/revoke", {"ID": str(self._lease)}, end=end)
            except HoldfastError:
                return  # it ends without that

    def _ensured(self, cluster: str, who: LeadershipCandidate) -> int:
        """A living lease, and an entry by which other managers know that this one lives."""
        with self._granting:
            if not self._lease:
                self._grant()
            lease = self._lease
            if cluster not in self._announced:
                key = self._keys.of(cluster, f"managers/{who.name}")
                self._refuse_namesake(key, who, lease)
                body = put(key, json.dumps(asdict(who)), lease)
                self._with_lease(txn([], [{"request_put": body}]))
                self._announced.add(cluster)
        return lease

    def _refuse_namesake(self, key: str, who: LeadershipCandidate, lease: int) -> None:
        """Two managers with one name would each mistake the other for itself. (A restarted manager has the same
        URL.)"""
        for found in kvs(self._gateway.ask("kv/range", get(key))):
            if found.lease != lease and json.dumps(who.url) not in found.value:
                raise Refused(
                    f"another manager is named {who.name}, too: give each a name of its own ({found.value})"
                )

    def _grant(self) -> None:
        sent = self._clock.monotonic()
        reply = self._gateway.ask("lease/grant", {"TTL": str(LEASE_SECONDS)})
        self._announced.clear()
        self._lease_until, self._lease = _lease_end(sent), int(reply["ID"])
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="etcd session", daemon=True)
            self._thread.start()

    def _with_lease(self, body: Body) -> Body:
        """A transaction that puts keys with the lease."""
        try:
            return self._gateway.ask("kv/txn", body, repeatable=False)
        except Refused as error:
            if "lease not found" not in str(error):
                raise
            self._lease_is_gone()
            raise Unreachable("etcd let this manager's lease expire: it asks for another") from None

    def _is_leftover(self, cluster: str, found: KeyValue) -> bool:
        """Whether the key is left from an earlier run of this very manager; whether it is gone now."""
        with self._changing:
            if not self._lease or found.lease != self._lease or cluster in self._held:
                return False
        left = Held(cluster, found.key, found.created, 0.0, 0.0, lambda: None, over=True)
        self._give_back(left, self._clock.monotonic() + LEAVE_SECONDS)
        return True

    def _give_back(self, held: Held, end: float) -> None:
        left = put(self._keys.of(held.cluster, "left"), str(held.created))
        body = txn(
            [created_at(held.key, held.created)],
            [{"request_delete_range": {"key": b64(held.key)}}, {"request_put": left}],
        )
        # sent twice, it is carried out only once
        self._gateway.ask("kv/txn", body, end=end)
        with self._changing:
            if held in self._to_give_back:
                self._to_give_back.remove(held)

    def _believed(self, sent: float) -> float:
        return min(sent + BELIEF_SECONDS - MARGIN_SECONDS, self._lease_until)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._clock.wait(self._wake, BEAT_SECONDS)
            self._wake.clear()
            try:
                self._beat()
            except HoldfastError as error:
                logger.debug("etcd: %s", error)
            except Exception:
                # without this thread the manager would no longer lead, and no log would say why
                logger.exception("the etcd session failed")
            self._lapse()

    def _beat(self) -> None:
        with self._changing:
            lease, back = self._lease, list(self._to_give_back)
        if not lease or self._ended.is_set():
            return
        sent = self._clock.monotonic()
        reply = self._gateway.ask("lease/keepalive", {"ID": str(lease)}, end=self._beat_end())
        if int(reply.get("result", {}).get("TTL", 0)) <= 0:
            self._lease_is_gone()
            return
        self._lease_until = _lease_end(sent)
        self._confirm()
        for held in back:
            self._give_back(held, self._beat_end())

    def _beat_end(self) -> float:
        return self._clock.monotonic() + BEAT_CALL_SECONDS

    def _confirm(self) -> None:
        """Read whether the keys are those that this session created."""
        held = list(self._held.values())
        if not held:
            return
        compare = [created_at(each.key, each.created) for each in held]
        # without a range in it, one member alone would answer
        reads = [{"request_range": get(each.key)} for each in held]
        sent = self._clock.monotonic()
        reply = self._gateway.ask("kv/txn", txn(compare, reads[:1], reads), end=self._beat_end())
        for index, each in enumerate(held):
            if not reply.get("succeeded"):
                found = ranged(reply, index)
                if not found or found[0].created != each.created:
                    self._lose(each)
                    continue
            each.confirmed(self._believed(sent))

    def _lapse(self) -> None:
        """End the leaderships that could not be confirmed for too long."""
        now = self._clock.monotonic()
        for held in list(self._held.values()):
            if now >= held.until:
                self._lose(held)

    def _lose(self, held: Held) -> None:
        if held.end():
            held.lost()

    def _lease_is_gone(self) -> None:
        with self._changing:
            self._lease = 0
            self._to_give_back.clear()
            held = list(self._held.values())
        for each in held:
            self._lose(each)


def _lease_end(sent: float) -> float:
    return sent + LEASE_SECONDS - MARGIN_SECONDS

"""What can go wrong between a manager and etcd: members that are gone or hang, lost answers, TLS, passwords."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.errors import BadInput, Conflict, OutcomeUnknown, Refused, Unreachable
from holdfast.store.base import Deposed, LeadershipCandidate, Stored
from holdfast.store.etcd import EtcdStore
from holdfast.store.gateway import Etcd, Gateway
from holdfast.store.session import LEASE_SECONDS
from holdfast.store.wording import b64
from holdfast.tls.authority import issue, make_ca
from tests.integration import etcd as real

RECORD = Record(1, "m1", 1, (Configuration(frozenset({("m1", "a")}), 0),), 1)
A, B = LeadershipCandidate("a"), LeadershipCandidate("b")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.EtcdCluster]:
    made = real.make(tmp_path_factory.mktemp("three"), 3)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[real.EtcdCluster]:
    made = real.make(tmp_path / "single")
    made.start()
    yield made
    made.stop()


def wait_for(reached: Callable[[], object], seconds: float = 10.0) -> float:
    """:return: after how long"""
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() < begun + seconds
        time.sleep(0.01)
    return time.monotonic() - begun


def raft_leader(cluster: real.EtcdCluster) -> real.Node:
    for node in cluster.nodes:
        said = httpx.post(f"{node.url}/v3/maintenance/status", json={}, trust_env=False).json()
        if said.get("leader") == said["header"]["member_id"]:
            return node
    raise AssertionError("etcd has no leading member")


def follower(cluster: real.EtcdCluster) -> real.Node:
    leading = raft_leader(cluster)
    return next(node for node in cluster.nodes if node is not leading)


def asked_first(etcd: Etcd, node: real.Node) -> Etcd:
    others = [url for url in etcd.endpoints if url != node.url]
    return replace(etcd, endpoints=(node.url, *others))


@pytest.mark.alone
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_member_that_is_gone_or_hangs_costs_half_a_second_once_and_nobody_the_leadership(
    three: real.EtcdCluster, how: str
) -> None:
    node = follower(three)
    where = asked_first(three.fresh(), node)
    lost = threading.Event()
    with closing(EtcdStore(where)) as store, store.lead("c", A, lost.set) as led:
        assert led
        store.replace("c", RECORD, 0)
        if how == "killed":
            node.kill()
        else:
            node.send(real.STOP)
        try:
            begun = time.monotonic()
            assert store.load("c") == Stored(RECORD, 1)
            assert time.monotonic() - begun < 0.6
            begun = time.monotonic()
            for version in range(1, 10):
                store.replace("c", replace(RECORD, term=version + 1), version)
            assert time.monotonic() - begun < 0.6, "it is asked last for a while"
            end = time.monotonic() + LEASE_SECONDS + 0.5
            while time.monotonic() < end:
                assert led.until > time.monotonic()
                time.sleep(0.02)
            assert not lost.is_set()
        finally:
            if how == "killed":
                node.start(three.initial)
            else:
                node.send(real.CONTINUE)
            three.wait()


def test_when_the_leading_member_of_etcd_is_killed_somebody_leads_again_soon(
    three: real.EtcdCluster,
) -> None:
    where = three.fresh()
    with closing(EtcdStore(where)) as store:
        with store.lead("c", A):
            store.replace("c", RECORD, 0)
            node = raft_leader(three)
            node.kill()
        try:

            def leads() -> bool:
                try:
                    with store.lead("c", A) as led:
                        return led is not None and store.replace("c", RECORD, 1) == 2
                except (Unreachable, OutcomeUnknown, Deposed):
                    # deposed: what etcd granted during its election was over when its answer came
                    return False

            assert wait_for(leads) < 6
        finally:
            node.start(three.initial)
            three.wait()


def test_a_thawed_leading_member_of_etcd_lets_no_two_managers_believe_to_lead(
    three: real.EtcdCluster,
) -> None:
    """It revokes leases that were renewed at its successor: etcd issue 15247."""
    where = three.fresh()
    with closing(EtcdStore(where)) as one, closing(EtcdStore(where)) as two:
        over = threading.Event()
        believed: list[tuple[float, float, float]] = []
        threads = [
            threading.Thread(target=_lead_on_and_on, args=(store, who, over, believed))
            for store, who in ((one, A), (two, B))
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        node = raft_leader(three)
        node.send(real.STOP)
        time.sleep(4.0)
        node.send(real.CONTINUE)
        time.sleep(2.0)
        over.set()
        for thread in threads:
            thread.join()
    assert believed
    believed.sort()
    for (_, _, until), (_, alone_from, _) in itertools.pairwise(believed):
        assert until <= alone_from


def _lead_on_and_on(
    store: EtcdStore,
    who: LeadershipCandidate,
    over: threading.Event,
    believed: list[tuple[float, float, float]],
) -> None:
    """:param believed: of each leadership: when it began, from when it was alone, until when it believed to be"""
    while not over.is_set():
        try:
            with store.lead("c", who) as led:
                if led:
                    begun = alone_from = time.monotonic()
                    alone_from = max(begun, led.alone_from)
                    until = led.until
                    while not over.is_set() and (now := led.until) > time.monotonic():
                        until = max(until, now)
                        time.sleep(0.002)
                    # handed over at once then: it believes no more
                    believed.append((begun, alone_from, until if not over.is_set() else begun))
        except (Unreachable, OutcomeUnknown, Refused):
            pass
        over.wait(0.05)


def test_without_etcd_the_leadership_ends_and_all_is_unreachable_and_it_comes_back(
    single: real.EtcdCluster,
) -> None:
    lost = threading.Event()
    node = single.nodes[0]
    with closing(EtcdStore(single.fresh())) as store:
        with store.lead("c", A, lost.set) as led:
            assert led
            store.replace("c", RECORD, 0)
            node.kill()
            assert lost.wait(LEASE_SECONDS)
            assert led.until < time.monotonic()
            with pytest.raises(Unreachable, match="etcd does not answer"):
                store.load("c")
            with pytest.raises(Conflict, match="does not lead c any more"):
                store.replace("c", RECORD, 1)
            with pytest.raises(Unreachable, match="etcd does not answer"):
                store.replace_settings("c", {}, 0)
        node.start(single.initial)
        single.wait()

        def leads() -> bool:
            with store.lead("c", A) as led:
                return led is not None

        assert wait_for(leads) < 4
        assert store.load("c") == Stored(RECORD, 1)


def test_a_write_to_a_member_that_hangs_has_an_unknown_outcome(single: real.EtcdCluster) -> None:
    node = single.nodes[0]
    with closing(EtcdStore(single.fresh())) as store:
        assert store.replace_settings("c", {"a": 1}, 0) == 1
        node.send(real.STOP)
        try:
            begun = time.monotonic()
            with pytest.raises(OutcomeUnknown, match="settings of c"):
                store.replace_settings("c", {"a": 2}, 1)
            assert time.monotonic() - begun < 4
        finally:
            node.send(real.CONTINUE)
        assert wait_for(lambda: store.settings("c").version in (1, 2)) < 5


class _Road(ThreadingHTTPServer):
    """:ivar to_lose: how many answers to transactions are lost from now on"""

    daemon_threads = True
    to_lose = 0


class _Lossy(BaseHTTPRequestHandler):
    """Passes requests on to etcd, and loses the first answers to transactions."""

    server: _Road
    upstream: str
    client: httpx.Client

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.client.post(self.upstream + self.path, content=body)
        if self.path == "/v3/kv/txn" and self.server.to_lose > 0:
            self.server.to_lose -= 1
            self.close_connection = True
            return
        self.send_response(reply.status_code)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def losing(upstream: str) -> Iterator[_Road]:
    with httpx.Client(verify=False, trust_env=False) as client:
        handler = type("Handler", (_Lossy,), {"upstream": upstream, "client": client})
        with served(handler) as server:
            yield server


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[_Road]:
    server = _Road(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("lost", [1, 2])
def test_a_write_whose_answer_is_lost_is_done_once_and_known_to_be_done(
    three: real.EtcdCluster, lost: int
) -> None:
    with losing(three.nodes[0].url) as server:
        where = replace(three.fresh(), endpoints=(f"http://127.0.0.1:{server.server_port}",))
        with closing(EtcdStore(where)) as store, store.lead("c", A):
            server.to_lose = lost
            assert store.replace("c", RECORD, 0) == 1
            assert store.replace("c", replace(RECORD, term=2), 1) == 2
            assert store.load("c") == Stored(replace(RECORD, term=2), 2)


def test_a_manager_led_without_knowing_as_the_answer_was_lost_and_leads_then(
    three: real.EtcdCluster,
) -> None:
    with losing(three.nodes[0].url) as server:
        where = replace(three.fresh(), endpoints=(f"http://127.0.0.1:{server.server_port}",))
        with closing(EtcdStore(where)) as store:
            with store.lead("c", A):
                pass
            server.to_lose = 1
            with pytest.raises(OutcomeUnknown):
                store.lead("c", A).__enter__()
            with store.lead("c", A) as led:
                assert led
                assert store.replace("c", RECORD, 0) == 1


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    make_ca(folder)
    issue(folder, "etcd", ["127.0.0.1"])
    issue(folder, "manager")
    return folder


def test_tls_with_certificates_on_both_sides(ca: Path, tmp_path: Path) -> None:
    options = [
        f"--cert-file={ca / 'etcd.pem'}",
        f"--key-file={ca / 'etcd.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={ca / 'ca.pem'}",
    ]
    made = real.make(tmp_path / "tls", 1, options, ca / "ca.pem")
    shown = replace(made.etcd, cert=ca / "manager.pem", key=ca / "manager.key")
    made.etcd = shown
    try:
        made.start()
        with closing(EtcdStore(made.fresh())) as store:
            told = threading.Event()
            with store.watch("c", told.set), store.lead("c", A) as led:
                assert led
                assert store.replace("c", RECORD, 0) == 1
                assert told.wait(3)
            assert store.load("c") == Stored(RECORD, 1)
        for wrong in (replace(shown, cert=None, key=None), replace(shown, ca=None)):
            with closing(EtcdStore(wrong)) as store, pytest.raises(Unreachable):
                store.load("c")
    finally:
        made.stop()
    with pytest.raises(BadInput, match=r"store\.tls\.ca"):
        EtcdStore(replace(shown, ca=tmp_path / "none"))
    with pytest.raises(BadInput, match=r"store\.tls\.cert"):
        EtcdStore(replace(shown, cert=ca / "ca.pem", key=ca / "manager.key"))


def test_user_and_password(single: real.EtcdCluster) -> None:
    plain = single.etcd
    with closing(Gateway(plain)) as gateway:
        for user in ("root", "holdfast"):
            gateway.ask("auth/user/add", {"name": user, "password": f"{user}-s3cret"})
            gateway.ask("auth/role/add", {"name": user})
            gateway.ask("auth/user/grant", {"user": user, "role": user})
        grant = {
            "permType": "READWRITE",
            "key": b64("/holdfast/"),
            "range_end": b64("/holdfast0"),
        }
        gateway.ask("auth/role/grant", {"name": "holdfast", "perm": grant})
        gateway.ask("auth/enable", {})
    right = replace(plain, user="holdfast", password="holdfast-s3cret")
    told = threading.Event()
    with closing(EtcdStore(right)) as store:
        with store.watch("c", told.set), store.lead("c", A) as led:
            assert led
            assert store.replace("c", RECORD, 0) == 1
            assert told.wait(3)
            # tokens are lost with the process that gave them
            single.nodes[0].kill()
            single.nodes[0].start(single.initial)
            with closing(EtcdStore(right)) as another:
                wait_for(lambda: _answers(another))
            assert store.load("c") == Stored(RECORD, 1)
        assert store.candidates("c") is not None
    wrong = replace(right, password="s3cret-but-wrong")
    nobody = replace(right, user="", password="")
    elsewhere = replace(right, prefix="/other/")
    for etcd, message in (
        (
            wrong,
            r"invalid user ID or password; see store\.user \(holdfast\) and store\.password_file",
        ),
        (nobody, r"it wants store\.user"),
        (elsewhere, "permission denied; grant holdfast readwrite below /other/"),
    ):
        with closing(EtcdStore(etcd)) as store, pytest.raises(Refused, match=message) as refused:
            store.load("c")
        assert "s3cret" not in str(refused.value)
        assert "s3cret" not in repr(etcd)


def _answers(store: EtcdStore) -> bool:
    try:
        store.load("c")
    except Unreachable:
        return False
    return True


def test_a_port_where_something_else_answers_is_told() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with served(Other) as server:
        etcd = Etcd((f"http://127.0.0.1:{server.server_port}",))
        with closing(EtcdStore(etcd)) as store, pytest.raises(Unreachable, match="is no etcd"):
            store.load("c")

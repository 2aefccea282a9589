"""Mutual certificates: which peers are let in, what the others learn, and renewal."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from fastapi import FastAPI, Request

from holdfast.core.commands import Promise
from holdfast.errors import BadInput, Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.manager.agents import agent_client
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.tls import Certificates, Credentials, Files, authority, contexts
from tests.unit.served import Authority, served


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other_ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


@pytest.fixture
def agent_files(ca: Authority) -> Files:
    return ca.files("agent", "127.0.0.1")


@pytest.fixture
def port(agent_files: Files) -> Iterator[int]:
    app = FastAPI()

    @app.post("/v1/who")
    async def who(request: Request) -> dict[str, Any]:
        return {"peer": getattr(request.state, "peer", None)}

    with served(app, contexts(agent_files)[0]) as port:
        yield port


def test_whoever_has_a_certificate_is_known_by_its_name(port: int, ca: Authority) -> None:
    context = contexts(ca.files("manager-1"))[1]
    with httpx.Client(verify=context, trust_env=False) as http:
        assert http.post(f"https://127.0.0.1:{port}/v1/who").json() == {"peer": "manager-1"}


def stranger(ca: Authority, other_ca: Authority) -> ssl.SSLContext:
    """Trusts the right CA, and shows a certificate of another."""
    context = ssl.create_default_context(cafile=authority.ca_cert(ca.folder))
    theirs = other_ca.files("x", "127.0.0.1")
    context.load_cert_chain(theirs.cert, theirs.key)
    return context


def nobody(ca: Authority, other_ca: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.ca_cert(ca.folder))


def expired(ca: Authority, other_ca: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca_cert(ca.folder))
    cert, key = outdated(ca)
    context.load_cert_chain(cert, key)
    return context


def distrusting(ca: Authority, other_ca: Authority) -> ssl.SSLContext:
    return contexts(other_ca.files("x"))[1]


def outdated(ca: Authority) -> tuple[Path, Path]:
    """A certificate that has expired yesterday."""
    real, skew = authority.CLOCK_SKEW, datetime.timedelta(days=3)
    original = authority._builder

    def past(subject: Any, issuer: Any, public: Any, days: int, latest: Any = None) -> Any:
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        return original(subject, issuer, public, days, yesterday)

    authority.CLOCK_SKEW, authority._builder = skew, past
    try:
        files = ca.files("old", "127.0.0.1")
    finally:
        authority.CLOCK_SKEW, authority._builder = real, original
    return files.cert, files.key


WHO = {
    nobody: "wants a certificate, and was shown none",
    stranger: "does not take our certificate: another CA has signed it",
    expired: "does not take our certificate: it has expired",
    distrusting: "its certificate was not signed by the CA that we trust",
}


@pytest.mark.parametrize("who", WHO, ids=lambda each: each.__name__)
def test_who_is_not_let_in_is_told_why_and_knows_that_nothing_was_done(
    port: int,
    ca: Authority,
    other_ca: Authority,
    who: Callable[..., ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for patience in (
        "CONNECT_SECONDS",
        "GRACE_SECONDS",
    ):  # the texts matter here, on a machine that may be busy
        monkeypatch.setattr(agent_client, patience, 10.0)
    context, url = who(ca, other_ca), f"https://127.0.0.1:{port}"
    manager = ManagerClient(url, context=context)
    with pytest.raises(Unreachable, match=WHO[who]):
        manager.clusters()
    with pytest.raises(Unreachable, match=WHO[who]):
        manager.remove_member("c", "m1")
    manager.close()

    async def as_manager() -> None:
        agent = AgentClient("m1", url, Credentials(None, context))
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: agent.state(None, 0),
            agent.identity,
            lambda: agent.command(1, Promise()),
        ]
        for ask in asked:
            with pytest.raises(Unreachable, match=WHO[who]):
                await ask()
        await agent.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(as_manager())


def test_an_agent_that_is_reached_by_a_name_that_it_has_not_is_not_trusted(
    port: int, ca: Authority
) -> None:
    manager = ManagerClient(f"https://localhost:{port}", context=contexts(ca.files("me"))[1])
    with pytest.raises(Unreachable, match=r"is for other hosts: .*'localhost'"):
        manager.clusters()
    manager.close()


def test_plain_http_is_not_answered_where_there_is_tls(port: int) -> None:
    manager = ManagerClient(f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match="does its URL begin with https"):
        manager.clusters()
    manager.close()


def test_tls_where_there_is_none(ca: Authority) -> None:
    with served(FastAPI()) as port:
        manager = ManagerClient(f"https://127.0.0.1:{port}", context=contexts(ca.files("me"))[1])
        with pytest.raises(Unreachable, match="does it speak TLS"):
            manager.clusters()
        manager.close()


def test_nothing_older_than_tls_1_3_is_spoken(port: int, ca: Authority) -> None:
    old = nobody(ca, ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError), httpx.Client(verify=old, trust_env=False) as http:
        http.get(f"https://127.0.0.1:{port}/v1/health")


# files that are wrong


def test_what_is_wrong_with_which_file_is_said(ca: Authority, other_ca: Authority) -> None:
    good, theirs = ca.files("a"), other_ca.files("b")
    cert, key = outdated(ca)
    garbage = ca.folder / "garbage"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nx\n")
    wrong = {
        r"tls\.ca: cannot read /nowhere: No such file": replace(good, ca=Path("/nowhere")),
        r"tls\.cert: cannot read /nowhere": replace(good, cert=Path("/nowhere")),
        r"tls\.key: cannot read .*: Is a directory": replace(good, key=ca.folder),
        r"tls\.ca: .*a\.key holds no certificate": replace(good, ca=good.key),
        r"tls\.ca: .*garbage holds no certificate": replace(good, ca=garbage),
        r"tls\.cert: .*a\.key holds no certificate": replace(good, cert=good.key),
        r"tls\.key: .*a\.pem holds no private key": replace(good, key=good.cert),
        r"tls\.key: .*b\.key is not the key of .*a\.pem": replace(good, key=theirs.key),
        r"tls\.cert: .*b\.pem was not signed by the CA in": replace(theirs, ca=good.ca),
        r"tls\.cert: .*old\.pem has expired on \d+-\d+-\d+: renew it": Files(good.ca, cert, key),
    }
    for message, files in wrong.items():
        with pytest.raises(BadInput, match=message):
            contexts(files)


def test_a_key_with_a_password_is_refused_without_asking_for_it(ca: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    files = ca.files("a")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BadInput, match=r"tls\.key: .*without a password"):
        contexts(files)


# renewal


def test_renewed_files_are_taken_for_new_connections_and_old_ones_go_on(ca: Authority) -> None:
    certificates = Certificates(ca.files("agent", "127.0.0.1"))
    mine = Certificates(ca.files("me"))
    app = FastAPI()

    @app.post("/v1/who")
    async def who(request: Request) -> dict[str, Any]:
        return {"peer": request.state.peer}

    with served(app, certificates.server) as port, httpx.Client(verify=mine.client) as kept:
        url = f"https://127.0.0.1:{port}/v1/who"
        assert kept.post(url).json() == {"peer": "me"}
        assert not certificates.look()

        # another CA, and new certificates of it, under the same names
        authority.make_ca(ca.folder, "renewed", force=True)
        ca.files("agent", "127.0.0.1", force=True)
        authority.issue(ca.folder, "me", force=True)
        assert certificates.look()
        assert kept.post(url).json() == {"peer": "me"}, "a connection that was open goes on"
        with httpx.Client(verify=mine.client) as http, pytest.raises(httpx.ConnectError):
            http.post(url)
        assert mine.look()
        with httpx.Client(verify=mine.client) as http:
            assert http.post(url).json() == {"peer": "me"}
            assert kept.post(url).json() == {"peer": "me"}


def test_files_that_are_half_renewed_are_not_taken_until_they_fit(ca: Authority) -> None:
    files = ca.files("agent", "127.0.0.1")
    certificates = Certificates(files)
    key = files.key.read_bytes()
    authority.issue(ca.folder, "agent", ["127.0.0.1"], force=True)
    new = files.key.read_bytes()
    files.key.write_bytes(key)
    for _ in range(2):
        with pytest.raises(BadInput, match="is not the key of"):
            certificates.look()
    mine = contexts(ca.files("me"))[1]
    with served(FastAPI(), certificates.server) as port, httpx.Client(verify=mine) as http:
        assert http.get(f"https://127.0.0.1:{port}/").status_code == 404
    files.key.write_bytes(new)
    assert certificates.look()


def test_what_tls_costs(port: int, ca: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    context = contexts(ca.files("me"))[1]
    url = f"https://127.0.0.1:{port}/v1/who"
    fresh, kept = [], []
    for _ in range(10):
        with httpx.Client(verify=context, trust_env=False) as http:
            begun = time.perf_counter()
            http.post(url)
            fresh.append((time.perf_counter() - begun) * 1000)
            for _ in range(10):
                begun = time.perf_counter()
                http.post(url)
                kept.append((time.perf_counter() - begun) * 1000)
    with capsys.disabled():
        print(
            f"\nTLS: request on a new connection {sorted(fresh)[5]:.1f} ms, "
            f"on an open one {sorted(kept)[50]:.2f} ms (medians)"
        )
    assert sorted(fresh)[5] < 300


def test_two_authorities_are_trusted_while_one_replaces_the_other(
    ca: Authority, other_ca: Authority
) -> None:
    old, new = ca.files("agent", "127.0.0.1"), other_ca.files("me")
    both = ca.folder / "both.pem"
    both.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
    with (
        served(FastAPI(), contexts(replace(old, ca=both))[0]) as port,
        httpx.Client(verify=contexts(replace(new, ca=both))[1], trust_env=False) as http,
    ):
        assert http.get(f"https://127.0.0.1:{port}/").status_code == 404

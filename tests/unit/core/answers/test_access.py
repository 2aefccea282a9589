"""Roles in certificates: which callers may ask agents and managers for what, and what the other callers are
answered."""

from __future__ import annotations

import ast
import asyncio
import datetime
import queue
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fastapi import APIRouter, FastAPI
from starlette.routing import Route

import holdfast
from holdfast.agent.clone.fetch import DonorAgent
from holdfast.agent.lease.peers import Answer, Peers
from holdfast.config.schema import TlsConfig
from holdfast.core.answers.access import (
    AGENT_API,
    ANYBODY,
    MANAGER_API,
    AccessRole,
    CertificateHolder,
    Routes,
    Table,
    Who,
    holder,
    refusal,
)
from holdfast.core.commands import Promise, Start
from holdfast.errors import BadInput, Refused, Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.http.wire import VouchRequest
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.daemon import application
from holdfast.server.base import Deadline
from holdfast.tls import Certificates, Credentials, Files, Needed, authority, contexts
from tests.unit.agent_world import World
from tests.unit.http.test_guarding import agent_app
from tests.unit.served import Authority, served

TOKEN = "s3cret-t0ken"
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
C = "/v1/clusters/{name}"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


# the tables


def routes(app: FastAPI | APIRouter) -> set[tuple[str, str]]:
    found = set()
    for route in app.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            found |= routes(included)
            continue
        assert isinstance(route, Route), f"{route} is no route that the table could list"
        assert route.methods
        found |= {(method, route.path) for method in route.methods - {"HEAD"}}
    return found


def test_the_tables_list_every_route_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert routes(agent_app(tmp_path, monkeypatch)) == set(AGENT_API)
    assert routes(application({}, {}, {}, {}, TOKEN)) == set(MANAGER_API)


def allowed(table: Table, role: AccessRole) -> set[tuple[str, str]]:
    """Beside what every role may."""
    one = CertificateHolder("x", frozenset({role}), frozenset({"c"}))
    return {key for key, who in table.items() if who != ANYBODY and not refusal(one, who, ("c",))}


def test_commands_come_from_managers_and_data_goes_to_agents() -> None:
    commands = {("POST", "/v1/command"), ("POST", "/v1/watch")}
    account = ("GET", "/v1/account")  # what a server stores instead of a password
    secrets = {account, ("POST", "/v1/reach")}
    secrets |= {("GET", f"/v1/{name}") for name in ("blockers", "verification", "record")}
    data = {("GET", "/v1/data"), ("GET", "/v1/backup"), ("POST", "/v1/digest")}
    data |= {("POST", f"/v1/verify/{part}") for part in ("tables", "load", "piece")}
    data.add(("POST", "/v1/backup/end"))
    vouch = {("POST", "/v1/vouch")}
    looks = {("GET", "/v1/identity"), ("GET", "/v1/facts")}
    common = {("GET", "/v1/state"), ("GET", "/v1/openapi.json")}
    assert allowed(AGENT_API, AccessRole.MANAGER) == commands | secrets | looks | common
    assert allowed(AGENT_API, AccessRole.AGENT) == data | vouch | common | {account}
    for person in (AccessRole.VIEWER, AccessRole.OPERATOR, AccessRole.ADMIN):
        assert allowed(AGENT_API, person) == looks | common
    assert allowed(AGENT_API, AccessRole.SERVER) == set()


def test_people_look_order_and_administer_by_their_roles() -> None:
    viewer, operator, admin = (
        allowed(MANAGER_API, role)
        for role in (AccessRole.VIEWER, AccessRole.OPERATOR, AccessRole.ADMIN)
    )
    assert not {method for method, _ in viewer} & CHANGING
    assert all(method in CHANGING for method, _ in operator - viewer)
    assert viewer < operator < admin
    assert admin - operator == {
        ("POST", f"{C}/settings"),
        ("POST", f"{C}/members"),
        ("POST", f"{C}/members/{{member}}/remove"),
        ("POST", f"{C}/members/{{member}}/confirm"),
        ("POST", f"{C}/adopt"),
        ("POST", f"{C}/store/repair"),
    }
    everything = {key for key, who in MANAGER_API.items() if who != ANYBODY}
    assert admin == everything
    for role in (AccessRole.AGENT, AccessRole.MANAGER):
        assert allowed(MANAGER_API, role) == {("GET", "/v1/openapi.json")}
    assert allowed(MANAGER_API, AccessRole.SERVER) == set()


def test_health_alone_is_everybodys() -> None:
    for table in (AGENT_API, MANAGER_API):
        assert [key for key, who in table.items() if who == ANYBODY] == [("GET", "/v1/health")]


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/clusters", ("viewer", "")),
        ("HEAD", "/v1/clusters", ("viewer", "")),
        ("GET", "/v1/clusters/shop/status", ("viewer", "shop")),
        ("POST", "/v1/clusters/shop/members/m1/clone", ("operator", "shop")),
        ("POST", "/v1/clusters/shop/members/m1/remove", ("admin", "shop")),
        ("POST", "/v1/clusters/shop/status", None),
        ("GET", "/v1/clusters//status", None),
        ("GET", "/v1/clusters/shop/status/", None),
        ("GET", "/v1/clusters/shop", None),
        ("GET", "/v1/clusters/a/b/status", None),
        ("POST", "/v1/clusters/shop/members//clone", None),
        ("PATCH", "/v1/clusters/shop/settings", None),
    ],
)
def test_a_path_is_found_as_the_router_finds_it(method: str, path: str, found: Any) -> None:
    got = Routes(MANAGER_API).find(method, path)
    if got is not None:
        who, cluster = got
        assert isinstance(who, frozenset)
        assert (min(who), cluster) == found
    else:
        assert found is None


def test_what_a_certificate_says() -> None:
    ours = ["holdfast:role:agent", "holdfast:cluster:shop", "holdfast:cluster:*"]
    others = ["holdfast:role:Manager", "holdfast:role:root", "https://a.b/c", "role:admin", "Ops"]
    said = holder("x", [*ours, *others])
    assert said == CertificateHolder("x", frozenset({AccessRole.AGENT}), frozenset({"shop", "*"}))


AGENTS: Who = frozenset({AccessRole.AGENT})


@pytest.mark.parametrize(
    ("roles", "clusters", "asked", "message"),
    [
        (("agent",), ("shop",), ("shop",), ""),
        (("agent",), ("*",), ("shop",), ""),
        (("agent", "viewer"), ("a", "shop"), ("shop", "a"), ""),
        (("agent",), ("shop",), (), ""),
        (("agent",), (), ("shop",), "is for no cluster, and this is shop: issue it anew"),
        (("agent",), ("a", "b"), ("shop",), "is for a, b, and this is shop"),
        (("agent",), ("sho",), ("shop",), "is for sho, and"),
        (("admin",), ("shop",), ("shop",), "is that of admin, and this is for agent"),
        ((), ("shop",), ("shop",), r"gives no role, .*issue it anew with --role ROLE"),
    ],
)
def test_why_not(roles: Any, clusters: Any, asked: Any, message: str) -> None:
    one = CertificateHolder("x", frozenset(map(AccessRole, roles)), frozenset(clusters))
    found = refusal(one, AGENTS, asked)
    assert bool(found) == bool(message)
    if message:
        import re

        assert re.search(message, found), found


# over TLS


@pytest.fixture
def world(tmp_path: Path, ca: Authority) -> Iterator[World]:
    """An agent of cluster c, without a token: its certificates are enough."""
    folder = tmp_path / "host"
    folder.mkdir()
    world = World(folder)
    world.stop_agent()
    world.http.close()
    files = ca.files("m1", "127.0.0.1", roles=[AccessRole.AGENT], clusters=["c"])
    tls = TlsConfig(ca=files.ca, cert=files.cert, key=files.key)
    world.config = world.config.model_copy(update={"tls": tls, "token_file": None})
    context = contexts(ca.files("me"))[1]
    world.http = httpx.Client(base_url=url(world), verify=context, trust_env=False)
    world.start_agent()
    yield world
    world.end()


def url(world: World) -> str:
    return f"https://127.0.0.1:{world.port}"


def test_an_agent_obeys_managers_of_its_cluster_only(world: World, ca: Authority) -> None:
    strangers: dict[str, tuple[dict[str, Any], str]] = {
        "m2": ({"roles": [AccessRole.AGENT], "clusters": ["c"]}, "is that of agent"),
        "alice": ({"roles": [AccessRole.ADMIN], "clusters": ["*"]}, "is that of admin"),
        "m1-mysqld": ({"roles": [AccessRole.SERVER], "clusters": ["c"]}, "is that of server"),
        "old": (
            {"roles": [], "clusters": []},
            r"gives no role.*anew with --role ROLE \(holdfast certs",
        ),
        "manager-d": (
            {"roles": [AccessRole.MANAGER], "clusters": ["d"]},
            "is for d, and this is c",
        ),
    }

    async def ask() -> None:
        mine = contexts(ca.files("manager-c", roles=[AccessRole.MANAGER], clusters=["c"]))[1]
        agent = AgentClient("m1", url(world), Credentials(None, mine))
        assert (await agent.command(1, Start())).error == ""
        for name, (rights, message) in strangers.items():
            theirs = contexts(ca.files(name, **rights))[1]
            other = AgentClient("m1", url(world), Credentials(None, theirs))
            with pytest.raises(Unreachable, match=f"it refuses: the certificate of .*{message}"):
                await other.command(9, Promise())
            with pytest.raises(Unreachable, match="it refuses"):
                await other.watch(None, 0, 5, None)
            await other.close()
        assert (await agent.command(2, Promise())).error == "", "nothing was promised to them"
        await agent.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


def test_who_is_refused_is_logged_now_and_then(
    world: World, ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    context = contexts(ca.files("m2", roles=[AccessRole.AGENT], clusters=["c"]))[1]
    with httpx.Client(verify=context, headers=JSON, trust_env=False) as http:
        for _ in range(5):
            assert http.post(f"{url(world)}/v1/command", content="{}").status_code == 403
    (text,) = (
        each.getMessage() for each in caplog.records if each.name == "holdfast.http.guarding"
    )
    assert "refused: POST '/v1/command': the certificate of m2 is that of agent" in text


def test_an_agent_gives_data_and_its_word_to_agents_of_its_cluster_only(
    world: World, ca: Authority
) -> None:
    paths = [("GET", "/v1/backup"), ("GET", "/v1/data"), ("POST", "/v1/vouch")]

    def status(context: ssl.SSLContext, method: str, path: str) -> int:
        with httpx.Client(verify=context, trust_env=False) as http:
            return http.request(method, url(world) + path, headers=JSON).status_code

    for name, roles, cluster, heard in (
        ("m2", [AccessRole.AGENT], "c", True),
        ("m9", [AccessRole.AGENT], "d", False),
        ("manager", [AccessRole.MANAGER], "c", False),
        ("alice", [AccessRole.ADMIN], "c", False),
        ("mysqld", [AccessRole.SERVER], "c", False),
    ):
        context = contexts(ca.files(name, roles=roles, clusters=[cluster]))[1]
        for method, path in paths:
            # a server that is down gives no copy; an empty request is none
            assert (status(context, method, path) != 403) is heard, (name, path)


JSON = {"Content-Type": "application/json"}


def test_people_may_what_their_role_says(ca: Authority) -> None:
    manager = ca.files("manager", "127.0.0.1", roles=[AccessRole.MANAGER], clusters=["c", "d"])
    app = application({}, {}, {}, {}, None)
    with served(app, contexts(manager)[0]) as port:

        def ask(role: AccessRole, cluster: str, method: str, path: str) -> int:
            files = ca.files(f"{role}-{cluster}", roles=[role], clusters=[cluster], force=True)
            with httpx.Client(verify=contexts(files)[1], trust_env=False) as http:
                return http.request(method, f"https://127.0.0.1:{port}{path}", json={}).status_code

        status, pause, settings = (f"/v1/clusters/c/{x}" for x in ("status", "pause", "settings"))
        # 404: accepted, and there is no such cluster; 400: accepted, and something in it is wrong
        assert ask(AccessRole.VIEWER, "c", "GET", status) == 404
        assert ask(AccessRole.VIEWER, "c", "POST", pause) == 403
        assert ask(AccessRole.OPERATOR, "c", "GET", status) == 404
        assert ask(AccessRole.OPERATOR, "c", "POST", pause) == 400
        assert ask(AccessRole.OPERATOR, "c", "POST", settings) == 403
        assert ask(AccessRole.ADMIN, "c", "POST", settings) == 404
        assert ask(AccessRole.ADMIN, "d", "POST", settings) == 403
        assert ask(AccessRole.ADMIN, "d", "GET", "/v1/clusters") == 200
        assert ask(AccessRole.MANAGER, "c", "GET", status) == 403
        assert ask(AccessRole.ADMIN, "c", "PATCH", settings) == 405
        assert ask(AccessRole.ADMIN, "c", "GET", "/v1/nothing") == 404
        old = ca.files("bob", roles=[], clusters=[])
        client = ManagerClient(f"https://127.0.0.1:{port}", context=contexts(old)[1])
        with pytest.raises(Refused, match=r"the certificate of bob gives no role, .*security\.md"):
            client.status("c")
        client.close()


def test_only_clusters_that_are_ones_business_are_named(ca: Authority) -> None:
    manager = ca.files("manager", "127.0.0.1")
    app = application({"c": Mock(), "d": Mock()}, {}, {}, {}, None)
    with served(app, contexts(manager)[0]) as port:
        for clusters, named in ((["c"], ["c"]), (["*"], ["c", "d"]), (["x"], [])):
            files = ca.files("eve", roles=[AccessRole.VIEWER], clusters=clusters, force=True)
            client = ManagerClient(f"https://127.0.0.1:{port}", context=contexts(files)[1])
            assert client.clusters() == named
            client.close()


# the other side of a connection


def test_a_database_server_in_place_of_its_agent_is_not_taken_for_it(ca: Authority) -> None:
    """Its certificate is for the same host. Nothing is sent to it, in any way."""
    manager = ca.files("manager", roles=[AccessRole.MANAGER], clusters=["c"])
    mine = Certificates(manager, expected=AccessRole.AGENT)
    shown = Credentials(None, mine.client)
    said: list[str] = []
    app = FastAPI()

    @app.post("/v1/command")
    async def command() -> None:
        said.append("heard")

    async def ask(port: int) -> None:
        agent = AgentClient("m1", f"https://127.0.0.1:{port}", shown)
        with pytest.raises(Unreachable, match=message):
            await agent.command(1, Promise())
        await agent.close()

    for name, role, cluster, message in (
        ("m1-server", AccessRole.SERVER, "c", "is that of server, and this is for agent"),
        ("m1-d", AccessRole.AGENT, "d", "m1-d is none of c"),
    ):
        impostor = ca.files(name, "127.0.0.1", roles=[role], clusters=[cluster])
        with served(app, contexts(impostor)[0]) as port:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(ask(port))
            donor = DonorAgent("m1", f"https://127.0.0.1:{port}", shown)
            with pytest.raises(Unreachable, match=message):
                donor.state(Deadline(5))
            with pytest.raises(Unreachable, match=message), donor.backup():
                pass
            plain = socket.create_connection(("127.0.0.1", port), 5)
            with plain, pytest.raises(ssl.SSLCertVerificationError):
                mine.client.wrap_socket(plain, server_hostname="127.0.0.1")
    assert said == []
    good = ca.files("m1", "127.0.0.1", roles=[AccessRole.AGENT], clusters=["c"])
    with (
        served(app, contexts(good)[0]) as port,
        httpx.Client(verify=mine.client, trust_env=False) as http,
    ):
        assert http.post(f"https://127.0.0.1:{port}/v1/command").status_code == 200


def test_the_word_of_a_database_server_is_no_agents_word(ca: Authority) -> None:
    """A lease depends on it."""
    mine = ca.files("m2", roles=[AccessRole.AGENT], clusters=["c"])
    peers = Peers(Credentials(None, Certificates(mine, expected=AccessRole.AGENT).client))
    app = FastAPI()

    @app.post("/v1/vouch")
    async def vouch() -> dict[str, bool]:
        return {"vouched": True}

    words: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
    server = ca.files("m1-server", "127.0.0.1", roles=[AccessRole.SERVER], clusters=["c"])
    agent = ca.files("m1", "127.0.0.1", roles=[AccessRole.AGENT], clusters=["c"])
    peers.start()
    try:
        with served(app, contexts(server)[0]) as no, served(app, contexts(agent)[0]) as yes:
            asked = VouchRequest(member="m2", address="127.0.0.1:1", seconds=1)
            urls = {"server": f"https://127.0.0.1:{no}"}
            peers.ask(urls, asked, 2.0, lambda *word: words.put(word))
            time.sleep(1)
            urls = {"agent": f"https://127.0.0.1:{yes}"}
            peers.ask(urls, asked, 10.0, lambda *word: words.put(word))
            assert words.get(timeout=20) == ("agent", Answer.VOUCHED)
            assert words.empty()
    finally:
        peers.stop()


def test_each_part_that_asks_agents_looks_at_whom_it_asks() -> None:
    """Agent, its keeper process, and manager."""
    made = {}
    package = Path(holdfast.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Certificates"):
                said = {each.arg: ast.unparse(each.value) for each in node.keywords}
                made[str(path.relative_to(package))] = said.get("expected")
    assert set(made) >= {"agent/daemon.py", "agent/lease/keeper_process.py", "manager/daemon.py"}
    assert set(made.values()) == {"AccessRole.AGENT"}, made


# one's own certificate


def test_what_others_would_refuse_does_not_start(world: World, ca: Authority) -> None:
    needed = Needed(AccessRole.AGENT, ("c",))
    for rights, message in (
        (
            {"roles": [], "clusters": []},
            r"tls\.cert: .*m7\.pem would be refused by others: .*no role",
        ),
        ({"roles": [AccessRole.SERVER], "clusters": ["c"]}, "is that of server"),
        ({"roles": [AccessRole.AGENT], "clusters": ["d"]}, "is for d, and this is c"),
    ):
        files = ca.files("m7", force=True, **rights)
        with pytest.raises(BadInput, match=message):
            Certificates(files, needed=needed)
    good = ca.files("m7", force=True, roles=[AccessRole.AGENT], clusters=["c"])
    certificates = Certificates(good, needed=needed)
    ca.files("m7", force=True, roles=[], clusters=[])
    with pytest.raises(BadInput, match="no role"):
        certificates.look()
    ca.files("m7", force=True, roles=[AccessRole.AGENT, AccessRole.MANAGER], clusters=["d", "c"])
    assert certificates.look()


def test_a_pki_without_uris_says_it_in_organizational_units(ca: Authority) -> None:
    files = by_another_pki(ca, ["holdfast:role:operator", "holdfast:cluster:c", "Database team"])
    described = authority.describe(files.cert)
    assert (described.roles, described.clusters) == (("operator",), ("c",))
    manager = ca.files("manager", "127.0.0.1")
    with served(application({}, {}, {}, {}, None), contexts(manager)[0]) as port:
        base = f"https://127.0.0.1:{port}/v1/clusters/c"
        with httpx.Client(verify=contexts(files)[1], trust_env=False) as http:
            assert http.post(f"{base}/pause", json={}).status_code == 400
            assert http.post(f"{base}/settings", json={}).status_code == 403


def by_another_pki(ca: Authority, units: list[str]) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    signed_by = x509.load_pem_x509_certificate(authority.ca_cert(ca.folder).read_bytes())
    ca_key = serialization.load_pem_private_key(authority.ca_key(ca.folder).read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "carol")]
        + [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in units]
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    files = Files(authority.ca_cert(ca.folder), ca.folder / "carol.pem", ca.folder / "carol.key")
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files

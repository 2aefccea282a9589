"""The guards in front of the APIs of agents and managers: strangers, sizes, slow clients, and the line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from holdfast.agent import daemon
from holdfast.core.answers.access import MANAGERS
from holdfast.core.commands import Promise
from holdfast.http import serving
from holdfast.http.guarding import LARGEST_BODY_BYTES, NOT_ACCEPTED, WANTED, guard
from holdfast.http.serving import error_response, one_line_errors
from holdfast.http.wire import CommandRequest
from holdfast.manager.api.app import make_app
from holdfast.manager.daemon import application
from tests.unit.agent_world import World
from tests.unit.served import Authority, served

TOKEN = "s3cret-t0ken"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE")
STRANGE = (
    "/",
    "/v1",
    "/docs",
    "/openapi.json",
    "/v1/health/",
    "/v1/health/x",
    "//v1/health",
    "/%2e",
)


def agent_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The application of a real agent, as it is served."""
    apps: list[Any] = []
    original = serving.HttpServer

    def recorded(app: FastAPI, *rest: Any) -> Any:
        apps.append(app)
        return original(app, *rest)

    monkeypatch.setattr(daemon, "HttpServer", recorded)
    world = World(folder, TOKEN)
    world.end()
    found: FastAPI = apps[0]
    return found


def manager_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    return application({}, {}, {}, {}, TOKEN)


def places(app: FastAPI) -> list[str]:
    """Every path that the application knows, and some that it does not."""
    known = [str(getattr(route, "path", "")) for route in app.routes]
    return [*(path.replace("{", "").replace("}", "") for path in known), *STRANGE]


@pytest.mark.parametrize("make", [agent_app, manager_app])
def test_a_stranger_learns_nothing_but_that_somebody_is_there(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make(tmp_path, monkeypatch)
    paths = places(app)
    assert {"/v1/health", "/v1/openapi.json"} < set(paths)
    assert len(paths) > 12
    answers: dict[str, set[tuple[int, bytes, tuple[tuple[str, str], ...]]]] = {}
    wrong = {"Authorization": f"Bearer {TOKEN}x"}

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            for path in paths:
                for method in METHODS:
                    for headers, told in (({}, WANTED), (wrong, NOT_ACCEPTED)):
                        answer = await http.request(method, path, headers=headers, content=b"{")
                        if (method, path) == ("GET", "/v1/health"):
                            assert answer.json() == {"status": "ok"}
                            continue
                        said = tuple(sorted(answer.headers.items()))
                        expected = bytes(error_response(401, "Unauthorized", told).body)
                        content = answer.content if method != "HEAD" else expected
                        answers.setdefault(told, set()).add((answer.status_code, content, said))

    asyncio.run(ask())
    assert answers.keys() == {WANTED, NOT_ACCEPTED}
    for told, same in answers.items():
        assert len(same) == 1, same
        ((status, content, headers),) = same
        assert status == 401
        assert told.encode() in content
        assert b"holdfast" not in content.lower()
        assert dict(headers).keys() == {
            "content-length",
            "content-type",
            "www-authenticate",
            "connection",
        }


def test_health_tells_neither_version_nor_server() -> None:
    with served(make_app({}, TOKEN)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/health")
        assert answer.json() == {"status": "ok"}
        assert set(answer.headers) == {"content-length", "content-type"}
        refused = httpx.get(f"http://127.0.0.1:{port}/v1/clusters")
        assert refused.status_code == 401
        assert "server" not in refused.headers


def test_two_tokens_are_none() -> None:
    with served(make_app({}, TOKEN)) as port:
        headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/clusters", headers=headers)
        assert answer.status_code == 401


# sizes


TABLE = {("POST", f"/v1/{name}"): MANAGERS for name in ("thing", "large", "parsed", "{what}/told")}
SHOWN = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    guard(app, TOKEN, TABLE, {"/v1/large": 4 * LARGEST_BODY_BYTES}, hosts=("Db1",))
    one_line_errors(app)

    @app.post("/v1/thing")
    @app.post("/v1/large")
    async def thing(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.post("/v1/parsed")
    async def parsed(given: dict[str, str]) -> dict[str, int]:
        return {"keys": len(given)}

    return app


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    with served(app) as port:
        yield port


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/thing", "/v1/parsed"])
def test_a_body_that_is_too_large_is_refused(port: int, chunked: bool, path: str) -> None:
    body = b'{"a": "' + b"x" * LARGEST_BODY_BYTES + b'"}'
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    content = pieces if chunked else body
    answer = httpx.post(f"http://127.0.0.1:{port}{path}", content=content, headers=SHOWN)
    assert answer.status_code == 413
    assert "larger than" in answer.json()["message"]
    assert answer.headers["connection"] == "close"


def test_each_path_has_its_own_bound(port: int) -> None:
    url = f"http://127.0.0.1:{port}/v1/large"
    with httpx.Client(headers=SHOWN) as http:
        assert http.post(url, content=b" " * LARGEST_BODY_BYTES * 4).status_code == 200
        assert http.post(url, content=b" " * (LARGEST_BODY_BYTES * 4 + 1)).status_code == 413


@pytest.mark.parametrize(
    "what", [b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000]
)
def test_a_head_without_end_is_cut_off(port: int, what: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(what)
        assert ended(connection, 5)


def test_many_headers_are_cut_off(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 5:
                connection.sendall(b"X-Header: " + b"a" * 1000 + b"\r\n")
        except OSError:
            return
        pytest.fail("5 s of headers were taken")


def test_what_is_no_http_is_not_answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(1000) == b""


# web pages


def answer(port: int, **headers: str) -> httpx.Response:
    """The answer to a request with these headers beside the right token; "" leaves one out."""
    shown = {**SHOWN, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = httpx.Request(
        "POST",
        f"http://127.0.0.1:{port}/v1/thing",
        headers={name: value for name, value in shown.items() if value},
        content=b"{}",
    )
    with httpx.Client() as http:
        return http.send(request)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "evil.example"}, "Host: "),
        ({"Host": "evil.example:{port}"}, "Host: "),
        ({"Host": "127.0.0.1.evil.example:{port}"}, "Host: "),
        ({"Host": "localhost.evil.example"}, "Host: "),
        ({"Host": "db2:{port}"}, "Host: "),
        ({"Origin": "http://evil.example"}, "Origin: "),
        ({"Origin": "http://127.0.0.1"}, "Origin: "),
        ({"Origin": "http://127.0.0.1:1"}, "Origin: "),
        ({"Origin": "null"}, "Origin: "),
        ({"Origin": "http://[x"}, "Origin: "),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "Host: "),
        ({"Sec_Fetch_Site": "cross-site"}, "Sec-Fetch-Site: "),
        ({"Sec_Fetch_Site": "same-site"}, "Sec-Fetch-Site: "),
        ({"Content_Type": ""}, "Content-Type: "),
        ({"Content_Type": "text/plain"}, "Content-Type: "),
        ({"Content_Type": "application/x-www-form-urlencoded"}, "Content-Type: "),
        ({"Content_Type": "multipart/form-data; boundary=application/json"}, "Content-Type: "),
        ({"Content_Type": "text/plain; application/json"}, "Content-Type: "),
    ],
)
def test_what_a_web_page_can_have_sent_is_refused(
    port: int, headers: dict[str, str], why: str
) -> None:
    """Even with the right token: a browser can be made to send it, as it sends its owner's certificate."""
    shown = {name: value.format(port=port) for name, value in headers.items()}
    # httpx sends no Content-Type by itself
    said = answer(port, **({"Content-Type": ""} | shown if "Content_Type" in shown else shown))
    assert said.status_code == 403
    assert why in said.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:{port}"},
        {"Host": "LOCALHOST"},
        {"Host": "127.0.0.1:1"},
        {"Host": "[::1]:{port}"},
        {"Host": "10.0.0.9"},
        {"Host": "db1:{port}"},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Host": "db1", "Origin": "https://DB1"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Content_Type": "application/json; charset=utf-8"},
        {"Content_Type": "Application/JSON"},
    ],
)
def test_what_none_can_have_sent_is_answered(port: int, headers: dict[str, str]) -> None:
    shown = {name: value.format(port=port) for name, value in headers.items()}
    assert answer(port, **shown).status_code == 200


def test_with_tls_a_page_cannot_use_its_owners_certificate(app: FastAPI, tmp_path: Path) -> None:
    from holdfast.tls import contexts

    ca = Authority(tmp_path)
    mine = contexts(ca.files("alice"))[1]
    with (
        served(app, contexts(ca.files("agent", "127.0.0.1"))[0]) as port,
        httpx.Client(verify=mine, headers=SHOWN) as http,
    ):
        url = f"https://127.0.0.1:{port}/v1/thing"
        assert http.post(url, content=b"{}").status_code == 200
        for headers in ({"Origin": "https://evil.example"}, {"Content-Type": "text/plain"}):
            assert http.post(url, content=b"{}", headers=headers).status_code == 403


def test_without_tls_nobody_is_heard_who_has_no_token() -> None:
    """Also where none is configured, which the configuration refuses: the guard does not rely on that."""
    with served(make_app({}, None)) as port, httpx.Client() as http:
        assert http.get(f"http://127.0.0.1:{port}/v1/clusters").status_code == 401
        assert http.get(f"http://127.0.0.1:{port}/v1/health").status_code == 200


# slow clients


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /v1/thing HT",
        b"POST /v1/thing HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /v1/thing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["nothing", "line", "headers", "body", "chunks"],
)
def test_a_request_that_does_not_end_is_given_up(app: FastAPI, begun: bytes) -> None:
    with (
        served(app, request_seconds=0.3) as port,
        socket.create_connection(("127.0.0.1", port), 5) as connection,
    ):
        connection.sendall(begun)
        assert ended(connection, 5)


def test_a_client_that_drips_is_given_up_too(app: FastAPI) -> None:
    with (
        served(app, request_seconds=0.3) as port,
        socket.create_connection(("127.0.0.1", port), 5) as connection,
    ):
        connection.sendall(b"POST /v1/thing HTTP/1.1\r\nHost: x\r\n")
        begun = time.monotonic()
        while time.monotonic() - begun < 5:
            try:
                connection.sendall(b"X: y\r\n")
            except OSError:
                return
            time.sleep(0.02)
        pytest.fail("5 s of dripping were taken")


def test_a_connection_that_waits_for_its_next_request_is_kept(app: FastAPI) -> None:
    with (
        served(app, request_seconds=0.2) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=SHOWN) as http,
    ):
        assert http.post("/v1/thing", content=b"a").status_code == 200
        time.sleep(0.5)
        transport = http._transport
        assert isinstance(transport, httpx.HTTPTransport)
        pool = transport._pool
        assert [each.is_idle() for each in pool.connections] == [True]
        assert http.post("/v1/thing", content=b"b").status_code == 200


def test_an_answer_that_takes_long_is_waited_for() -> None:
    app = FastAPI()

    @app.get("/v1/slow")
    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "done"

    with served(app, request_seconds=0.1) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/slow").json() == "done"


def ended(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


# the log


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [
        (record.getMessage(), getattr(record, "fields", {}))
        for record in caplog.records
        if record.name == "holdfast.http.guarding"
    ]


def test_what_changes_something_is_logged_once_with_who_and_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(tmp_path, TOKEN)
    try:
        with httpx.Client(base_url=world.http.base_url, headers=SHOWN) as http:
            body = CommandRequest.of(7, Promise()).model_dump_json()
            for _ in range(3):
                assert http.get("/v1/state").status_code == 200
            for path in ("/v1/watch", "/v1/vouch"):
                http.post(path, content=b"{}")
            assert http.post("/v1/command", content=body).status_code == 200
    finally:
        world.end()
    ((text, fields),) = lines(caplog)
    assert text == "asked: POST '/v1/command'"
    assert fields.pop("at").startswith("127.0.0.1:")
    assert fields == {"what": "promise of term 7", "who": "token", "answer": "200"}


def test_with_tls_it_is_the_certificates_name_that_is_logged(
    app: FastAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    from holdfast.tls import contexts

    ca = Authority(tmp_path)
    mine = contexts(ca.files("manager-1"))[1]
    headers = {**SHOWN, "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"}
    with (
        served(app, contexts(ca.files("agent", "127.0.0.1"))[0]) as port,
        httpx.Client(verify=mine) as http,
    ):
        http.post(f"https://127.0.0.1:{port}/v1/thing", content=b"body-s3cret", headers=headers)
    ((text, fields),) = lines(caplog)
    assert fields["who"] == "manager-1"
    assert fields["at"].startswith("127.0.0.1:")
    assert "s3cret" not in text + str(fields)


def test_requests_that_are_refused_are_logged_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served(make_app({}, TOKEN)) as port:
        for _ in range(20):
            httpx.post(f"http://127.0.0.1:{port}/v1/command", headers={"Authorization": "Bearer x"})
    ((text, _),) = lines(caplog)
    assert "refused without the right token: 1 requests, the last from 127.0.0.1" in text


def test_a_path_cannot_forge_a_line_of_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    httpx.post(f"http://127.0.0.1:{port}/v1/%0aINFO%20forged/told", headers=SHOWN)
    ((text, _),) = lines(caplog)
    assert "\n" not in text
    assert json.dumps("\n")[1:-1] in text

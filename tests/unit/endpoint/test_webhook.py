"""Webhooks: signed, sent again after a failure, only for what happened."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.endpoint import webhook
from holdfast.endpoint.webhook import LASTING_SECONDS, Delivery, Webhook, WebhookSender, key
from holdfast.tls import contexts
from tests.unit.hand_clock import PacedClock
from tests.unit.served import Authority, served


@dataclass
class Receiver:
    """:ivar answers: status of the next answers; then 200"""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.got.append((headers, body))
        status = self.answers.pop(0) if self.answers else 200
        location = [(b"location", b"http://127.0.0.1:1/")] if status == 302 else []
        await send({"type": "http.response.start", "status": status, "headers": location})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def receiving(*answers: int) -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver(list(answers))
    with served(receiver) as port:
        yield receiver, f"http://127.0.0.1:{port}/in?token=hush"


def sender(url: str, lasting: float = LASTING_SECONDS, **more: Any) -> WebhookSender:
    return WebhookSender(Webhook(url, **more), threading.Event(), lasting, PacedClock(100))


def test_an_event_is_delivered_with_its_number_and_no_signature_where_there_is_no_secret() -> None:
    with receiving() as (receiver, url):
        assert sender(url).deliver("c-7", b'{"a":1}') == Delivery("127.0.0.1", 1)
    ((headers, body),) = receiver.got
    assert json.loads(body) == {"a": 1}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "c-7"
    assert "webhook-signature" not in headers


@pytest.mark.parametrize("text", ["plain words", "whsec_" + base64.b64encode(b"bytes").decode()])
def test_it_is_signed_as_standard_webhooks_are(text: str) -> None:
    secret = b"bytes" if text.startswith("whsec_") else text.encode()
    with receiving() as (receiver, url):
        sender(url, secret=key(text)).deliver("c-7", b"{}")
    ((headers, body),) = receiver.got
    signed = f"c-7.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"


def test_the_standards_own_example_is_signed_as_it_says() -> None:
    secret = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["whsec_", "whsec_x"])
def test_a_secret_that_would_sign_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="follows whsec_"):
        key(text)


def test_an_answer_without_end_holds_nothing_up() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)

    with served(endless) as port:
        done = sender(f"http://127.0.0.1:{port}/").deliver("c-7", b"{}")
    assert done == Delivery("127.0.0.1", 1)


def test_what_may_be_taken_later_is_sent_again_with_the_same_number() -> None:
    with receiving(503, 429, 500) as (receiver, url):
        assert sender(url).deliver("c-7", b"{}") == Delivery("127.0.0.1", 4)
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {"c-7"}


@pytest.mark.parametrize("status", [302, 400, 403, 404])
def test_what_is_refused_is_not_sent_again_nor_elsewhere(status: int) -> None:
    with receiving(status, status) as (receiver, url):
        delivery = sender(url).deliver("c-7", b"{}")
    assert delivery == Delivery("127.0.0.1", 1, f"it answered {status}")
    assert len(receiver.got) == 1


def test_nobody_there_is_tried_again_and_given_up_in_time_without_telling_the_address() -> None:
    delivery = sender("http://127.0.0.1:1/hush", lasting=20).deliver("c-7", b"{}")
    assert delivery.tries > 2
    assert "refused" in delivery.trouble
    assert "hush" not in repr(delivery)
    assert "hush" not in repr(Webhook("http://127.0.0.1:1/hush", b"hush"))


def test_it_is_given_up_when_the_manager_ends() -> None:
    ended = threading.Event()
    threading.Timer(0.2, ended.set).start()
    address, slow = Webhook("http://127.0.0.1:1/"), PacedClock(1 / 20)
    delivery = WebhookSender(address, ended, clock=slow).deliver("c-7", b"{}")
    assert delivery.tries == 1
    assert delivery.why.endswith("this manager ends")


def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(tmp_path: Path) -> None:
    files = Authority(tmp_path).files("there", "127.0.0.1")
    receiver = Receiver()
    context, _ = contexts(files, "")
    context.verify_mode = ssl.CERT_NONE
    with served(receiver, context) as port:
        url = f"https://127.0.0.1:{port}/"
        strange = sender(url, lasting=10).deliver("c-7", b"{}")
        known = sender(url, ca=str(files.ca)).deliver("c-7", b"{}")
    assert "certificate" in strange.trouble.lower()
    assert known == Delivery("127.0.0.1", 1)
    assert len(receiver.got) == 1

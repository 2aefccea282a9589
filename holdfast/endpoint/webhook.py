"""Sends events to web addresses, repeatedly until they are accepted, signed as Standard Webhooks are.

The signature is that of https://www.standardwebhooks.com (version 1), which libraries of many languages check:
HMAC-SHA256 of ``id.timestamp.body``. A receiver that gets the same ``webhook-id`` twice has received one event twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from holdfast.clock import SYSTEM_CLOCK, Clock

TIMEOUT_SECONDS = 10.0
LASTING_SECONDS = 600.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PREFIX = "whsec_"

AGAIN = {408, 425, 429}
"""Status codes of refusals that mean: later."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """:ivar url: often a secret itself, so only its host is ever shown
    :ivar secret: the key of the signature; b"" for none
    """

    url: str = field(repr=False)
    secret: bytes = field(default=b"", repr=False)
    ca: str | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """:ivar trouble: why it was not accepted, or \"\"
    :ivar ended: it was given up because this manager ends
    """

    host: str
    tries: int
    trouble: str = ""
    ended: bool = False

    @property
    def why(self) -> str:
        """Why it was given up, or \"\"."""
        return f"{self.trouble}; this manager ends" if self.ended else self.trouble


def key(text: str) -> bytes:
    """The bytes of a secret: base64 after ``whsec_``, as the standard has it, or the text itself.

    :raises ValueError: there are none
    """
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        found = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"what follows {PREFIX} is not base64: {error}") from None
    if not found:
        raise ValueError(f"nothing follows {PREFIX}")
    return found


def signature(secret: bytes, number: str, timestamp: int, body: bytes) -> str:
    signed = hmac.new(secret, f"{number}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


class WebhookSender:
    """Delivers to one address. Blocks, so it needs a separate thread.

    :ivar lasting: for how many seconds delivery of an event is tried
    """

    def __init__(
        self,
        webhook: Webhook,
        ended: threading.Event,
        lasting: float = LASTING_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """:param ended: once it is set, what is under way is given up
        :raises OSError, ssl.SSLError: the CA cannot be read
        """
        self._webhook = webhook
        self._ended = ended
        self._lasting = lasting
        self._clock = clock
        self._verify = ssl.create_default_context(cafile=webhook.ca)

    def deliver(self, number: str, body: bytes) -> Delivery:
        """:param number: identifies the event, also when it is sent again"""
        end = self._clock.monotonic() + self._lasting
        pauses = _pauses()
        host = self._webhook.host
        # proxies of the manager's environment are not used
        with httpx.Client(verify=self._verify, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            for tries in itertools.count(1):
                trouble, again = self._try(client, number, body)
                pause = next(pauses)
                if not trouble or not again or self._clock.monotonic() + pause > end:
                    return Delivery(host, tries, trouble)
                if self._clock.wait(self._ended, pause):
                    return Delivery(host, tries, trouble, ended=True)
        raise AssertionError("unreachable")

    def _try(self, client: httpx.Client, number: str, body: bytes) -> tuple[str, bool]:
        """Why it was not accepted, or \"\"; and whether it may be later."""
        now = int(self._clock.now())
        headers = {"content-type": "application/json", "webhook-id": number}
        headers["webhook-timestamp"] = str(now)
        if secret := self._webhook.secret:
            headers["webhook-signature"] = signature(secret, number, now, body)
        try:
            # the body of the answer is not read: it may be without end
            with client.stream("POST", self._webhook.url, content=body, headers=headers) as reply:
                status = reply.status_code
        except (httpx.TransportError, ssl.SSLError) as error:
            return str(error) or type(error).__name__, True
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__, False
        if httpx.codes.is_success(status):
            return "", False
        return f"it answered {status}", status in AGAIN or status >= 500


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)

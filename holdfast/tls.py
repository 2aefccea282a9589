"""TLS between managers, agents and people: each shows a certificate of one CA, and asks for one.

Renewed files are taken without a restart: connections that are made from then on use them, those that exist go on.
"""

from __future__ import annotations

import datetime
import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from holdfast.errors import BadInput, HoldfastError

LOOK_SECONDS = 10.0
"""How often files are looked at."""
WARN_DAYS = 30
WARN_AGAIN_SECONDS = 86400.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files. ``cert`` may hold its intermediates too; ``ca`` may hold several, while one replaces another."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows: a bearer token, a certificate, both or neither.

    :ivar context: for connections that are made; without one a server that speaks TLS is judged by the
        authorities that the system trusts
    """

    token: str | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """As httpx takes it."""
        return self.context or True


class Newest(ssl.SSLContext):
    """Stands for the contexts of files that are renewed: makes each connection with the one of the moment."""

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.newest.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self.newest.wrap_socket(*args, **kwargs)


class Certificates:
    """One process's certificate, and the CA that it trusts.

    :param key: what messages put before the names ca, cert and key
    :ivar server, client: contexts for both sides; good for the life of the process
    """

    def __init__(self, files: Files, key: str = "tls.") -> None:
        """:raises BadInput: naming the file, and what is wrong with it"""
        self.files = files
        self._key = key
        self.server = Newest(ssl.PROTOCOL_TLS_SERVER)
        self.client = Newest(ssl.PROTOCOL_TLS_CLIENT)
        self._stamp = _stamp(files)
        self.server.newest, self.client.newest = contexts(files, key)
        self._ended = threading.Event()

    def look(self) -> bool:
        """Take files that were renewed; whether there were any.

        :raises BadInput: what is there now is not good: the former ones stay in use, and it is tried again
        """
        stamp = _stamp(self.files)
        if stamp == self._stamp:
            return False
        self.server.newest, self.client.newest = contexts(self.files, self._key)
        self._stamp = stamp
        return True

    def keep_fresh(self) -> None:
        """Look now and then, in a thread: a disk that stalls holds up nobody who waits for a lease."""
        threading.Thread(target=self._run, name="certificates", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        said = ""
        waited = WARN_AGAIN_SECONDS
        while True:
            try:
                if self.look():
                    logger.info("renewed certificates are in use: %s", self.files.cert)
                    waited = WARN_AGAIN_SECONDS
                said = ""
            except HoldfastError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("renewed certificates are not taken: %s", said)
            if waited >= WARN_AGAIN_SECONDS:
                self._warn()
                waited = 0.0
            waited += LOOK_SECONDS
            if self._ended.wait(LOOK_SECONDS):
                return

    def _warn(self) -> None:
        for path in (self.files.cert, self.files.ca):
            try:
                left = days_left(path)
            except HoldfastError:
                continue
            if left < WARN_DAYS:
                logger.warning("%s expires in %d days: renew it", path, max(0, left))


def contexts(files: Files, key: str = "tls.") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server's side, and for the client's.

    :raises BadInput: naming the file: not readable, expired, of another CA, the key of another …
    """
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    for name, path in (("ca", files.ca), ("cert", files.cert), ("key", files.key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadInput(f"{key}{name}", f"cannot read {path}: {error.strerror}") from None
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.ca)
        except (ssl.SSLError, OSError):
            raise BadInput(f"{key}ca", f"{files.ca} holds no certificate in PEM") from None
        try:
            # never asks on a terminal for what a daemon cannot be told
            context.load_cert_chain(files.cert, files.key, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            _blame(files, key, error)
    server.num_tickets = 0  # connections are kept open, and nobody resumes one
    _try(files, key, server, client)
    return server, client


def days_left(path: Path) -> int:
    """Until the first certificate of a file expires; negative once it has. :raises BadInput:"""
    return (_ends(path) - datetime.datetime.now(datetime.UTC)).days


def peer_name(certificate: Any) -> str:
    """The common name of a peer's certificate, as ``getpeercert()`` has it; the first host where it has none."""
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for field_name, value in part:
            if field_name == "commonName":
                return str(value)
    return next((str(value) for _, value in certificate.get("subjectAltName", ())), "")


def explain(error: BaseException) -> str:
    """What a failed connection says of TLS and certificates, for people; "" if nothing."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return _unverified(each)
        if isinstance(each, ssl.SSLError):
            reason = (each.reason or str(each)).upper().replace(" ", "_")
            return next((text for part, text in _ALERTS if part in reason), f"TLS: {reason}")
    return ""


def refused_certificate(error: BaseException) -> bool:
    """Whether the peer has said by a TLS alert that it does not take our certificate: it has read no request."""
    return any(
        isinstance(each, ssl.SSLError)
        and not isinstance(each, ssl.SSLCertVerificationError)
        and any(part in (each.reason or "").upper() for part in _REFUSALS)
        for each in _chain(error)
    )


_ALERTS = (
    ("CERTIFICATE_REQUIRED", "it wants a certificate, and was shown none: see tls, or --tls-cert"),
    ("ALERT_UNKNOWN_CA", "it does not take our certificate: another CA has signed it"),
    ("ALERT_CERTIFICATE_EXPIRED", "it does not take our certificate: it has expired"),
    ("ALERT_BAD_CERTIFICATE", "it does not take our certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "it does not take our certificate: not good for a client"),
    ("ALERT_CERTIFICATE", "it does not take our certificate"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: should the URL begin with http://?"),
    ("RECORD_LAYER_FAILURE", "it does not speak TLS: should the URL begin with http://?"),
    ("PROTOCOL_VERSION", "it does not speak TLS 1.3"),
    ("HTTP_REQUEST", "it does not speak TLS: should the URL begin with http://?"),
    ("UNEXPECTED_EOF", "it ended the connection in the middle of the TLS handshake"),
)
_REFUSALS = ("ALERT_UNKNOWN_CA", "CERTIFICATE_REQUIRED", "ALERT_CERTIFICATE", "_CERTIFICATE")

_EXPIRED, _NOT_YET = 10, 9
_OTHER_CA = frozenset({2, 7, 18, 19, 20, 21, 24})
_HOST = frozenset({62, 64})
_PURPOSE = 26


def _unverified(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code in _HOST:
            # OpenSSL's text names the host
            return f"its certificate is for other hosts: {error.verify_message}"
        case code if code == _EXPIRED:
            return "its certificate has expired"
        case code if code == _NOT_YET:
            return "its certificate is not valid yet: look at the clocks of both hosts"
        case code if code in _OTHER_CA:
            return "its certificate was not signed by the CA that we trust"
        case _:
            return f"its certificate is not good: {error.verify_message}"


def _blame(files: Files, key: str, error: Exception) -> NoReturn:
    reason = getattr(error, "reason", "") or ""
    if reason == "KEY_VALUES_MISMATCH":
        text = f"{files.key} is not the key of {files.cert}"
        raise BadInput(f"{key}key", text) from None
    if "-----BEGIN CERTIFICATE-----" not in _text(files.cert):
        raise BadInput(f"{key}cert", f"{files.cert} holds no certificate in PEM") from None
    text = f"{files.key} holds no private key in PEM that can be read without a password"
    raise BadInput(f"{key}key", text) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _try(files: Files, key: str, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Speak to ourselves, in memory: what the others would find wrong is found here."""
    client.check_hostname = False
    try:
        _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        name, text = _own_fault(files, error)
        raise BadInput(f"{key}{name}", text) from None
    except ssl.SSLError as error:
        text = f"{files.cert} is not good: {error.reason or error}"
        raise BadInput(f"{key}cert", text) from None
    finally:
        client.check_hostname = True


def _own_fault(files: Files, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Which of the files it is, and what is wrong with it."""
    code = error.verify_code
    if code == _EXPIRED:
        ends = {
            name: (_ends(path), path) for name, path in (("cert", files.cert), ("ca", files.ca))
        }
        name = min(ends, key=lambda each: ends[each][0])
        when, path = ends[name]
        return name, f"{path} has expired on {when:%Y-%m-%d}: renew it"
    if code == _NOT_YET:
        return "cert", f"{files.cert} is not valid yet: is this host's clock right?"
    if code in _OTHER_CA:
        return "cert", f"{files.cert} was not signed by the CA in {files.ca}"
    if code == _PURPOSE:
        return "cert", f"{files.cert} must be good for servers and clients (extended key usage)"
    return "cert", f"{files.cert} is not good: {error.verify_message}"


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname="holdfast"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    for _ in range(8):
        for number, side in enumerate(sides):
            if not done[number]:
                try:
                    side.do_handshake()
                    done[number] = True
                except ssl.SSLWantReadError:
                    pass
        if all(done):
            return


def _ends(path: Path) -> datetime.datetime:
    from cryptography import x509  # not needed by a command without certificates

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise BadInput(str(path), f"cannot be read: {error}") from None


def _stamp(files: Files) -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in (files.ca, files.cert, files.key):
        try:
            is_now = path.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((is_now.st_ino, is_now.st_mtime_ns, is_now.st_size))
    return tuple(found)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

"""Contexts for both sides: each shows a certificate of one CA, and requires one."""

from __future__ import annotations

import datetime
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from holdfast.core.answers.access import EVERY_CLUSTER, AccessRole, CertificateHolder, refusal
from holdfast.errors import BadInput
from holdfast.tls.peer import peer
from holdfast.tls.trouble import EXPIRED, NOT_YET, OTHER_CA, PURPOSE, plain

SAY_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files. ``cert`` may hold its intermediates too; ``ca`` may hold several, while one replaces another."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Needed:
    """What this process's certificate must say so that peers accept it as a server."""

    role: AccessRole
    clusters: tuple[str, ...]


def contexts(
    files: Files,
    key: str = "tls.",
    needed: Needed | None = None,
    expected: AccessRole | None = None,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server's side, and for the client's.

    :param expected: the role of the servers that the client's side connects to, in one of this process's clusters;
        None: any
    :raises BadInput: naming the file: not readable, expired, of another CA, the key of another, without the role …
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
            # a daemon cannot be asked for a passphrase on a terminal
            context.load_cert_chain(files.cert, files.key, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            _blame(files, key, error)
    server.sslobject_class = _Outspoken
    server.num_tickets = 0  # connections are kept open, and no client resumes one
    own = _try(files, key, server, client)
    if needed is not None and (why := refusal(own, frozenset({needed.role}), needed.clusters)):
        raise BadInput(f"{key}cert", f"{files.cert} would be refused by others: {why}")
    if expected is not None:
        _expect(client, expected, own)
    return server, client


def days_left(path: Path) -> int:
    """Days until the first certificate of a file expires; negative once it has. :raises BadInput:"""
    return (_ends(path) - datetime.datetime.now(datetime.UTC)).days


class NotTheRole(ssl.SSLCertVerificationError):
    """The peer has a certificate for this host, but with another role."""

    verify_code = 0

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.verify_message = why


def _expect(client: ssl.SSLContext, role: AccessRole, own: CertificateHolder) -> None:
    """Make each handshake end with a check of the peer's role.

    A database server has a certificate for the same host as its agent: an intruder on that server who takes the agent's
    port while the agent is down must not be taken for the agent.
    """

    def look(certificate: object) -> None:
        other = peer(certificate)
        why = refusal(other, frozenset({role}), ())
        if (
            not why
            and EVERY_CLUSTER not in own.clusters
            and not any(map(other.is_of, own.clusters))
        ):
            of = ", ".join(sorted(own.clusters)) or "no cluster"
            why = f"{other.name} is none of {of}"
        if why:
            raise NotTheRole(why)

    class Looking(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            look(self.getpeercert())

    class LookingSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            look(self.getpeercert())

    client.sslobject_class = Looking
    client.sslsocket_class = LookingSocket


class _Outspoken(ssl.SSLObject):
    """The server's side of a connection. When it refuses a handshake, the peer learns why.

    asyncio and uvloop drop a failed connection with the alert still unsent. A client of TLS 1.3 takes the handshake for
    done by then: it would have to guess whether its request was read. So the failure is kept back until the client has
    ended the connection, or the handshake's time is up.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            _told.count(plain(error))
            if not isinstance(error, ssl.SSLCertVerificationError) and (
                error.reason != "PEER_DID_NOT_RETURN_A_CERTIFICATE"
            ):
                raise  # no TLS: no client that understands an alert
            self._failure = error
            raise ssl.SSLWantReadError from error  # makes the caller send what there is to send


class _Refusals:
    """Logs now and then how many there were: a client that asks often must not fill the disk."""

    def __init__(self) -> None:
        self._said_at = -SAY_SECONDS
        self._count = 0

    def count(self, why: str) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._said_at >= SAY_SECONDS:
            logger.warning("refused TLS handshakes: %d, the last: %s", self._count, why)
            self._said_at, self._count = now, 0


_told = _Refusals()


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


def _try(
    files: Files, key: str, server: ssl.SSLContext, client: ssl.SSLContext
) -> CertificateHolder:
    """Connect both own sides in memory, to find what peers would reject. Returns the holder that they would see."""
    client.check_hostname = False
    try:
        return peer(_handshake(server, client))
    except ssl.SSLCertVerificationError as error:
        name, text = _own_fault(files, error)
        raise BadInput(f"{key}{name}", text) from None
    except ssl.SSLError as error:
        text = f"{files.cert} is not good: {error.reason or error}"
        raise BadInput(f"{key}cert", text) from None
    finally:
        client.check_hostname = True


def _own_fault(files: Files, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Which of the files is wrong, and why."""
    code = error.verify_code
    if code == EXPIRED:
        ends = {
            name: (_ends(path), path) for name, path in (("cert", files.cert), ("ca", files.ca))
        }
        name = min(ends, key=lambda each: ends[each][0])
        when, path = ends[name]
        return name, f"{path} has expired on {when:%Y-%m-%d}: renew it"
    if code == NOT_YET:
        return "cert", f"{files.cert} is not valid yet: is this host's clock right?"
    if code in OTHER_CA:
        return "cert", f"{files.cert} was not signed by the CA in {files.ca}"
    if code == PURPOSE:
        return "cert", f"{files.cert} must be good for servers and clients (extended key usage)"
    return "cert", f"{files.cert} is not good: {error.verify_message}"


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> object:
    """The client's certificate, as the server's side has it."""
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
                except ssl.SSLWantReadError as waits:
                    if isinstance(waits.__cause__, ssl.SSLError):
                        raise waits.__cause__ from None
        if all(done):
            break
    return sides[1].getpeercert()


def _ends(path: Path) -> datetime.datetime:
    from cryptography import x509  # a command without certificates does not need this module

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise BadInput(str(path), f"cannot be read: {error}") from None

"""A server that is not what it should be, and keeps what clients send; and whether that contains a password."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SALT = b"abcdefghijklmnopqrst"
CAPABILITIES = 0x81FF_F7FF  # all but TLS
FULL_AUTHENTICATION = b"\x01\x04"


class Rogue:
    """Greets as a server does, and keeps what clients send.

    :param greeting: the plugin that its greeting names; :param switch: to which it switches
    :param more: its further answers
    """

    def __init__(self, greeting: str, switch: str = "", more: tuple[bytes, ...] = ()) -> None:
        self._greeting = greeting
        self._switch = switch
        self._more = more
        self.told = b""

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(2)
            self._send(connection, 0, self._greet())
            number = self._hear(connection) + 1
            if self._switch:
                number = self._ask(
                    connection, number, b"\xfe" + self._switch.encode() + b"\0" + SALT + b"\0"
                )
            for each in self._more:
                number = self._ask(connection, number, each)
            while chunk := connection.recv(4096):
                self.told += chunk

    def _greet(self) -> bytes:
        low, high = struct.pack("<I", CAPABILITIES)[:2], struct.pack("<I", CAPABILITIES)[2:]
        head = b"\x0a" + b"11.8.9-MariaDB\0" + struct.pack("<I", 7) + SALT[:8] + b"\0" + low
        rest = b"\x2d" + struct.pack("<H", 2) + high + b"\x15" + bytes(10) + SALT[8:] + b"\0"
        return head + rest + self._greeting.encode() + b"\0"

    def _ask(self, connection: socket.socket, number: int, payload: bytes) -> int:
        self._send(connection, number, payload)
        return self._hear(connection) + 1

    def _send(self, connection: socket.socket, number: int, payload: bytes) -> None:
        connection.sendall(struct.pack("<I", len(payload))[:3] + bytes([number]) + payload)

    def _hear(self, connection: socket.socket) -> int:
        head = _exactly(connection, 4)
        self.told += _exactly(connection, int.from_bytes(head[:3], "little"))
        return head[3]


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        chunk = connection.recv(count - len(found))
        if not chunk:
            raise ConnectionError
        found += chunk
    return found


@contextmanager
def listening(rogue: Rogue, listener: socket.socket) -> Iterator[None]:
    def serve() -> None:
        with suppress(OSError):
            while True:
                rogue.serve(listener.accept()[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@contextmanager
def on_loopback(rogue: Rogue) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with listening(rogue, listener):
        yield port


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def deciphered(told: bytes, password: str) -> bool:
    """Whether the rogue finds the password in something that was encrypted with its key."""
    scheme = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    for start in range(max(1, len(told) - 255)):
        with suppress(ValueError):
            plain = KEY.decrypt(told[start : start + 256], scheme)
            found = bytes(a ^ SALT[i % len(SALT)] for i, a in enumerate(plain))
            if password.encode() in found:
                return True
    return False

"""Authentication strings: what a server stores instead of a password, so that no password has to be sent to another
host.

With ``CREATE USER … AS`` (MariaDB: ``USING``) such a string makes an account whose password only its owner knows.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput

ROUNDS = 5000
SALT_LENGTH = 20
ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_PATTERNS = {
    Flavor.MARIADB: re.compile(r"\*[0-9A-F]{40}"),
    Flavor.MYSQL: re.compile(rf"\$A\$005\$[./0-9A-Za-z]{{{SALT_LENGTH}}}[./0-9A-Za-z]{{43}}"),
}

_TRIPLES = (
    (0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14),
    (15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29),
)  # fmt: skip
"""The order in which SHA-crypt writes the bytes of a digest."""


def authentication_string(flavor: Flavor, password: str) -> str:
    """MariaDB: of ``mysql_native_password``; MySQL: of ``caching_sha2_password``, with a new salt each time."""
    if flavor is Flavor.MARIADB:
        return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()
    salt = "".join(secrets.choice(ALPHABET) for _ in range(SALT_LENGTH))
    return f"$A$005${salt}{sha256_crypt(password.encode(), salt.encode())}"


def identified(flavor: Flavor, authentication: str) -> str:
    """The clause of CREATE USER and ALTER USER for an account whose password that is.

    :raises BadInput: it is no authentication string
    """
    check_authentication(flavor, authentication)
    if flavor is Flavor.MARIADB:
        return f"IDENTIFIED VIA mysql_native_password USING '{authentication}'"
    return f"IDENTIFIED WITH caching_sha2_password AS '{authentication}'"


@dataclass(frozen=True, slots=True)
class Login:
    """How a replication account logs in: what the server stores instead of its password, and whether it requires a
    certificate as well."""

    authentication: str
    encrypted: bool = False

    def clause(self, flavor: Flavor) -> str:
        return identified(flavor, self.authentication) + " REQUIRE X509" * self.encrypted


def check_authentication(flavor: Flavor, text: str) -> None:
    """Check that ``text`` is an authentication string: it becomes part of a statement.

    :raises BadInput: it is none
    """
    if not _PATTERNS[flavor].fullmatch(text):
        raise BadInput("authentication", f"is no authentication string of {flavor}")


def sha256_crypt(password: bytes, salt: bytes) -> str:
    """U. Drepper's SHA-crypt with SHA-256 and 5000 rounds, for a salt of any length: MySQL's has 20 bytes."""
    other = hashlib.sha256(password + salt + password).digest()
    first = hashlib.sha256(password + salt + _repeated(other, len(password)))
    bits = len(password)
    while bits:
        first.update(other if bits & 1 else password)
        bits >>= 1
    digest = first.digest()
    long_password = _repeated(hashlib.sha256(password * len(password)).digest(), len(password))
    long_salt = _repeated(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(ROUNDS):
        step = hashlib.sha256(long_password if number & 1 else digest)
        if number % 3:
            step.update(long_salt)
        if number % 7:
            step.update(long_password)
        step.update(digest if number & 1 else long_password)
        digest = step.digest()
    text = "".join(_base64(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _TRIPLES)
    return text + _base64(digest[31] << 8 | digest[30], 3)


def _repeated(digest: bytes, length: int) -> bytes:
    return (digest * (length // len(digest) + 1))[:length]


def _base64(value: int, characters: int) -> str:
    return "".join(ALPHABET[value >> 6 * place & 63] for place in range(characters))

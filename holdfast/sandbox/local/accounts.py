"""The accounts of a sandbox's servers, and their passwords.

The passwords come from a secret that is drawn once for each cache folder: a template of a data
directory holds them, and can be used again only as long as they are the same.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.sandbox.local.spec import MOST_MEMBERS
from holdfast.sandbox.servers.trees import cache_dir
from holdfast.server.base import Account
from holdfast.server.replication.barring import GRANTED
from holdfast.server.replication.proof import PROOF_SCHEMA

SCHEMA = "app"


class Accounts:
    """:ivar admin: the agents' account, over the local socket, or by TCP on its own host
    :ivar app: a client's account: all on schema ``app``, no privilege that read_only does not stop"""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.admin = self._account("holdfast")
        self.app = self._account("app")

    def replication(self, member: str) -> Account:
        """The member's own account, which exists on all members."""
        return self._account(f"repl_{member}")

    def statements(self, flavor: str) -> list[str]:
        """The statements of a template; the same for a sandbox of any size."""
        made = [f"CREATE DATABASE {SCHEMA}"]
        # made here, it is no DDL in the first primary's pending log: that could not be cut
        made += PROOF_SCHEMA
        for host in ("localhost", "127.0.0.1"):  # the second counts once the socket is removed
            made += _user(self.admin, host, "ALL PRIVILEGES ON *.*", " WITH GRANT OPTION")
        made += _user(self.app, "%", f"ALL PRIVILEGES ON {SCHEMA}.*")
        rights = f"{GRANTED[Flavor(flavor)]} ON *.*"
        for number in range(1, MOST_MEMBERS + 1):
            made += _user(self.replication(f"m{number}"), "%", rights)
        made.append("ALTER USER 'root'@'localhost' ACCOUNT LOCK")
        return made

    def _account(self, user: str) -> Account:
        digest = hmac.new(self._secret, user.encode(), hashlib.sha256).hexdigest()
        return Account(user, digest[:24])


def cached_accounts(cache: Path | None = None) -> Accounts:
    """The accounts of all sandboxes whose templates are kept in this cache folder.

    :raises BadInput: the file cannot be read, or not be made
    """
    folder = cache or cache_dir()
    try:
        return Accounts(_secret(folder))
    except OSError as error:
        raise BadInput("HOLDFAST_CACHE", f"{folder} cannot be used: {error.strerror}") from None


def _secret(folder: Path) -> bytes:
    """Drawn once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "sandbox-secret"
    if not path.exists():
        new = folder / f".sandbox-secret.{os.getpid()}.{secrets.token_hex(4)}"
        new.touch(mode=0o600)
        new.write_bytes(secrets.token_bytes(32))
        try:
            os.link(new, path)
        except FileExistsError:  # another process was quicker: its secret counts
            pass
        finally:
            new.unlink()
    return path.read_bytes()


def _user(account: Account, host: str, rights: str, options: str = "") -> list[str]:
    name = f"'{account.user}'@'{host}'"
    return [
        f"CREATE USER {name} IDENTIFIED BY '{account.password}'",
        f"GRANT {rights} TO {name}{options}",
    ]

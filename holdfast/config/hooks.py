"""Which executables of the user's are called when the primary changes, and which webhooks are notified."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from holdfast.config.values import Duration, Name, StrictModel
from holdfast.errors import BadInput


def _words(value: Any) -> Any:
    """Split a string as a shell would split it; no shell runs it."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"cannot be split into words: {error}") from None
    return value


def _absolute(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not os.path.isabs(words[0]):
        raise ValueError(f"must begin with an absolute path, not with {words[0]!r}")
    if any("\0" in word for word in words):
        raise ValueError("must hold no NUL")
    return words


def _web_address(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError("must hold no blanks, and nothing that cannot be printed")
    parts = urlsplit(text)
    if parts.port == 0:  # reading the port of an invalid one raises
        raise ValueError("must name a port that there is")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with http:// or https://, and name a host")
    if parts.username or parts.password:
        raise ValueError("must hold no user and no password: use secret_file")
    return text


Argv = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_absolute)]
Patience = Annotated[Duration, Field(gt=0, le=600)]


class WebhookConfig(StrictModel):
    """:ivar secret_file: requests are signed with its content (Standard Webhooks)
    :ivar ca: must have signed the receiver's certificate; else one of the system's authorities
    """

    url: Annotated[str, AfterValidator(_web_address)]
    secret_file: Path | None = None
    ca: Path | None = None


class HooksConfig(StrictModel):
    """Executables on the manager's host, each as a list of words or as one string.

    :ivar failover: MHA's master_ip_failover_script
    :ivar switchover: MHA's master_ip_online_change_script
    :ivar shutdown: MHA's shutdown_script: called after ``failover`` has taken the clients away
    :ivar report: MHA's report_script
    :ivar timeout: a hook that has not ended after this time is killed, and has failed
    :ivar ssh_user, user: passed to them as MHA passes them
    :ivar environment_file: lines ``KEY=VALUE``, which become their environment: passwords belong there
    """

    failover: Argv = ()
    switchover: Argv = ()
    shutdown: Argv = ()
    report: Argv = ()
    timeout: Patience = 10.0
    report_timeout: Patience = 60.0
    ssh_user: Name = "root"
    user: Name = "root"
    environment_file: Path | None = None
    webhooks: tuple[WebhookConfig, ...] = ()

    @property
    def executables(self) -> dict[str, tuple[str, ...]]:
        """The configured executables, by their purpose."""
        every = {name: getattr(self, name) for name in ("failover", "switchover", "shutdown")}
        every["report"] = self.report
        return {name: argv for name, argv in every.items() if argv}


def missing(config: HooksConfig, key: str) -> list[BadInput]:
    """Executables and files that do not exist, or that this process cannot execute.

    :param key: where in the file it stands
    """
    found = []
    for name, argv in config.executables.items():
        path = Path(argv[0])
        if not path.is_file():
            found.append(BadInput(f"{key}.{name}", f"{path} is not there"))
        elif not os.access(path, os.X_OK):
            found.append(BadInput(f"{key}.{name}", f"{path} is not executable: chmod +x {path}"))
    return found


def environment(path: Path, key: str) -> dict[str, str]:
    """The content of an environment file: ``KEY=VALUE``, or ``KEY="VALUE"``, one a line; ``#`` begins a comment line.

    :raises BadInput: naming the line, never its content
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(key, f"cannot read {path}: {error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier() or "\0" in value:
            raise BadInput(key, f"{path}: line {number} is not KEY=VALUE")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name.strip()] = value
    return found

"""Examines a server that this agent started before clients come in; one that boots open is not started again."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.state_folder import unreadable
from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Server
from holdfast.server.process import boot
from holdfast.server.process.process import Running

SMALL_BYTES = 1 << 20
"""A larger part of the command is a program, not a script: it is identified by its size and its time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """:ivar of: the fingerprint of what the server booted with; "" if it is not known"""

    reason: str
    of: str


_FORM = TypeAdapter(_Verdict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a server boots with: its command, its option file with what that includes, and persisted variables."""

    command: Sequence[str]
    option_file: Path
    datadir: Path

    def fingerprint(self) -> str:
        """A text that changes whenever one of them is changed."""
        digest = hashlib.sha256(boot.fingerprint(self.option_file, self.datadir).encode())
        for word in self.command:
            digest.update(f"{word}\n".encode())
            path = Path(shutil.which(word) or word)
            if not path.is_file():
                continue
            found = path.stat()
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
            if found.st_size <= SMALL_BYTES:
                digest.update(path.read_bytes())
        return digest.hexdigest()


class BootCheck:
    """Judges the first look at each run, and remembers a verdict across the agent's own end.

    The file ``boots_open`` in the state directory holds why the server is not started, and the fingerprint of what it
    booted with: once the fingerprint differs, or the file is removed, the server is started again. A verdict that
    cannot be written is held while the agent lives; one that cannot be read, until it is removed.
    """

    def __init__(
        self,
        server: Server,
        server_run: ServerRun,
        published: PublishedState,
        inputs: Inputs,
        state_dir: Path,
    ) -> None:
        self._server = server
        self._server_run = server_run
        self._published = published
        self._inputs = inputs
        self._path = state_dir / "boots_open"
        self._admitted: Running | None = None
        self._verdict = self._read()
        self._on_disk = self._verdict is not None
        published.change(unstartable=self._verdict.reason if self._verdict else "")

    def first_contact(self, running: Running, deadline: Deadline) -> None:
        """To be called when a run has answered, before it is published as up. Lets clients in where all is well.

        :raises Refused: it boots open, and was killed
        """
        if self._admitted is running:
            return
        started = self._server_run.started(running)
        flavor, version = self._published.state.flavor, self._published.state.version
        files = boot.read(self._inputs.option_file, flavor, version, self._inputs.datadir)
        booted = self._server.booted(files, deadline)
        # a server that somebody else has started does not keep clients out, and is not judged
        if booted.wrong and (started or booted.shut):
            raise self._refused(running, "; ".join(booted.wrong))
        if booted.shut:
            self._server.let_clients_in(files, deadline)
        self._admitted = running

    def may_start(self) -> None:
        """:raises Refused: it would boot open again"""
        self.look_again()
        if self._verdict is not None:
            raise Refused(self._verdict.reason)

    def look_again(self) -> None:
        """Called while the server is down: check whether what it boots with has changed."""
        if self._verdict is None:
            return
        of = self._verdict.of
        removed = self._on_disk and not self._path.exists()
        if removed or (of and self._inputs.fingerprint() != of):
            remove_durably(self._path)
            self._verdict, self._on_disk = None, False
            self._published.change(unstartable="")
            say(logger, "what the server boots with was changed: it may be started again")

    def _refused(self, running: Running, wrong: str) -> Refused:
        reason = (
            f"its server boots with {wrong}, whatever its agent's command line says: what it answers could be lost, so "
            f"it was killed, and is not started again before that is changed (or {self._path} removed)"
        )
        say(logger, reason, logging.ERROR, pid=running.pid)
        self._verdict = _Verdict(reason, self._inputs.fingerprint())
        self._published.change(unstartable=reason)
        self._server_run.kill(reason)
        try:
            replace_durably(self._path, json.dumps(asdict(self._verdict)))
            self._on_disk = True
        except OSError as error:
            say(logger, f"cannot write {self._path}: {error.strerror}", logging.ERROR)
        return Refused(reason)

    def _read(self) -> _Verdict | None:
        try:
            return _FORM.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = f"{self._path} cannot be read ({unreadable(error)})"
            return _Verdict(f"{reason}: its server is not started before it is removed", "")

"""Initialises a data directory where there is none, to found a cluster: see ``core/observed/data_state.py`` for when.

The server creates it in a folder of the agent's within the data directory, which then replaces the empty one. A marker
in the state directory records the progress, and the files concerned: a half-made one is made anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from holdfast.agent.disk import datadir as files
from holdfast.agent.disk.term import replace_durably
from holdfast.agent.member import LocalMember
from holdfast.agent.runtime.asking import fetch_account
from holdfast.config.schema import ServerConfig
from holdfast.core.commands import Initialise
from holdfast.core.observed.data_state import Data
from holdfast.core.view import MemberState, ServerStatus
from holdfast.errors import HoldfastError, Refused
from holdfast.log import say
from holdfast.server.authentication import Login, authentication_string
from holdfast.server.base import Deadline
from holdfast.server.process import boot
from holdfast.server.process.initialise import administrator, initialise
from holdfast.server.replication.barring import GRANTED
from holdfast.server.replication.proof import PROOF_SCHEMA

MAKING = "making"
FSTAB = Path("/etc/fstab")

logger = logging.getLogger(__name__)

Done = Callable[[str], None]


class Founding:
    """:param obeyed: whether this agent has ever obeyed a manager, or its data are being cloned"""

    def __init__(
        self, member: LocalMember, obeyed: Callable[[], bool], fstab: Path = FSTAB
    ) -> None:
        self._published = member.published
        self._server_run = member.server_run
        self._own = member.own
        self._admin = member.admin
        self._replication = member.replication
        self._state_dir = member.state_dir
        self._marker = member.state_dir / "founded"
        self._shown = member.shown
        self._obeyed = obeyed
        self._fstab = fstab

    def publish(self) -> None:
        """Publish what is there; called now and then while the server is down."""
        if (found := self.data()) is not self._published.state.data:
            self._published.change(data=found)

    def data(self) -> Data:
        """What is in the data directory."""
        own = self._own
        if self._obeyed():
            return Data.USED
        marker = self._read()
        if marker and marker == _made(own.datadir) and not _foreign(own):
            return Data.NEW
        half = marker == MAKING and not _foreign(own)
        if not half and not (files.is_empty(own.datadir) and not _has_binlogs(own.binlog_index)):
            return Data.USED
        return Data.USED if self._unmounted() else Data.EMPTY

    def perform(self, command: Initialise, deadline: Deadline, done: Done) -> None:
        """:raises Refused: not here, or it could not be made; nothing that was there is touched"""
        try:
            self._perform(command, deadline, done)
        except HoldfastError as error:
            self._published.alarm("founding", f"its data directory is not initialised: {error}")
            raise
        self._published.alarm("founding", "")

    def _perform(self, command: Initialise, deadline: Deadline, done: Done) -> None:
        state = self._published.state
        if self._server_run.look() is not None or state.server is not ServerStatus.DOWN:
            raise Refused(f"the server of {state.name} is {state.server}")
        match self.data():
            case Data.NEW:
                return
            case Data.USED:
                raise Refused(
                    self._unmounted()
                    or f"{self._own.datadir} is not empty, or {state.name} has been in a cluster"
                )
        if elsewhere := _elsewhere(self._own):
            raise Refused(
                f"{elsewhere} in {self._own.option_file}: what that holds is not known to be empty; make the data "
                "directory with the server's own tools"
            )
        statements = self._statements(state, command, deadline)
        done("accounts asked")
        own = self._own
        replace_durably(self._marker, MAKING)
        files.remove_old(own.datadir, own.binlog_index)  # a former half-made one, if there is any
        incoming = files.fresh(own.datadir)
        try:
            initialise(
                own.flavor,
                own.command,
                own.option_file,
                incoming,
                self._state_dir,
                statements,
                deadline,
                lambda path: files.belong(path, own.datadir),
            )
            done("initialised")
            (incoming / "auto.cnf").unlink(missing_ok=True)  # each start makes one
            if self._server_run.look() is not None:
                raise Refused("somebody has started the server")
            files.take_place(own.datadir, own.binlog_index)
        finally:
            files.drop(own.datadir, files.INCOMING)
        replace_durably(self._marker, _made(own.datadir))
        self._published.change(data=self.data(), unfit="")
        say(logger, f"{own.datadir} was initialised, to found a cluster")
        done("in place")

    def _statements(self, state: MemberState, command: Initialise, deadline: Deadline) -> list[str]:
        """Accounts of all members, and the first rows: made here, they are in no server's binlog."""
        flavor, encrypted = state.flavor, self._own.tls is not None
        made = [*PROOF_SCHEMA, *administrator(self._admin)]
        for member, agent in command.agents:
            if member == state.name:
                user = self._replication.user
                text = authentication_string(flavor, self._replication.fresh().password)
            else:
                account = fetch_account(member, agent, self._shown, deadline)
                user, text = account.user, account.authentication
            if not user or any(each in user for each in "'\\\0\n"):
                raise Refused(f"{user!r} cannot be the name of a replication account")
            clause = Login(text, encrypted).clause(flavor)
            made.append(f"CREATE USER '{user}'@'%' {clause}")
            made.append(f"GRANT {GRANTED[flavor]} ON *.* TO '{user}'@'%'")
        return made

    def _unmounted(self) -> str:
        """The data directory, or this agent's own, if it is on a mount point on which nothing is mounted; or ""."""
        points = _mount_points(self._fstab)
        for folder in (self._own.datadir, self._own.binlog_index.parent, self._state_dir):
            whole = Path(os.path.realpath(folder))
            for each in (whole, *whole.parents):
                if each in points and not os.path.ismount(each):
                    return f"{each} is a mount point of {self._fstab}, and nothing is mounted there"
        return ""

    def _read(self) -> str:
        try:
            return self._marker.read_text(errors="replace").strip()
        except OSError:
            return ""


def _made(datadir: Path) -> str:
    """Identifies the files that were made: files that somebody puts there instead differ."""
    try:
        found = [(datadir / "mysql").stat()]
        with contextlib.suppress(FileNotFoundError):
            found.append((datadir / "ibdata1").stat())
    except OSError:
        return ""
    return " ".join(f"{each.st_dev}:{each.st_ino}" for each in found)


def _foreign(own: ServerConfig) -> bool:
    """Whether somebody has put data there."""
    try:
        return bool(files.user_data(own.datadir, own.flavor))
    except OSError:
        return True


def _elsewhere(own: ServerConfig) -> str:
    """An option by which InnoDB keeps files outside of the data directory, or ""."""
    options = boot.read(own.option_file, own.flavor, "", own.datadir).options
    for name in ("innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"):
        if name in options and own.datadir / options[name] != own.datadir:
            return f"{name} = {options[name]}"
    return ""


def _has_binlogs(index: Path) -> bool:
    return index.exists() or any(index.parent.glob(f"{index.stem}.[0-9]*"))


def _mount_points(fstab: Path) -> frozenset[Path]:
    try:
        lines = fstab.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    fields = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return frozenset(
        Path(each[1].replace("\\040", " "))
        for each in fields
        if len(each) > 3 and each[1].startswith("/") and each[1] != "/" and each[2] != "swap"
    )

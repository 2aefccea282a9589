"""What a primary's lease depends on, on disk: an agent that starts continues where its predecessor ended."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.state_folder import unreadable
from holdfast.agent.disk.term import replace_durably
from holdfast.agent.lease.state import merged
from holdfast.core.lease import Electorate
from holdfast.core.timing import Timing
from holdfast.errors import Fatal, Refused


@dataclass(frozen=True, slots=True)
class Entrusted:
    """:ivar lease: its duration, in seconds
    :ivar incarnation: the run of the server that lives no longer than its lease, or ""
    """

    electorate: Electorate | None = None
    lease: float = Timing().lease
    incarnation: str = ""


_FORM = TypeAdapter(Entrusted)


class ElectorateFile:
    """Keeps the latest electorate; never replaces it by an older one.

    :raises Fatal: when the file exists and cannot be read
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "lease"
        self._lock = threading.Lock()
        self._opened = ""
        self._kept = self._read()

    @property
    def kept(self) -> Entrusted:
        return self._kept

    def has_opened(self, incarnation: str) -> bool:
        """Whether that run of the server takes writes because its agent opened it."""
        return bool(incarnation) and incarnation in (self._kept.incarnation, self._opened)

    def opens(self, incarnation: str) -> None:
        """The agent is about to open that run; "": the server is a replica again. Kept also where no lease is used."""
        self._opened = incarnation

    def keep(self, electorate: Electorate, lease: float) -> None:
        """Keep the electorate; on disk when this returns.

        :raises Refused: it cannot be written, as from :meth:`enforcing`
        """
        with self._lock:
            known = merged(self._kept.electorate, electorate)
            self._write(replace(self._kept, electorate=known, lease=lease))

    def enforcing(self, incarnation: str) -> None:
        """Note that this run of the server must not outlive its lease; "": none must."""
        with self._lock:
            self._write(replace(self._kept, incarnation=incarnation))

    def _write(self, kept: Entrusted) -> None:
        if kept == self._kept:
            return
        try:
            replace_durably(self.path, _FORM.dump_json(kept, indent=1).decode() + "\n")
        except OSError as error:
            raise Refused(f"cannot write {self.path}: {error.strerror}") from error
        self._kept = kept

    def _read(self) -> Entrusted:
        try:
            return _FORM.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Entrusted()
        except (OSError, ValidationError) as error:
            raise Fatal(
                f"{self.path} cannot be read, so it is not known which members confirm this server's lease: remove "
                f"it, and the manager sends it again ({unreadable(error)})"
            ) from error

"""What a primary's lease hangs on, on disk: an agent that comes back goes on where the one before stood."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.term import replace_durably
from holdfast.agent.lease.state import merged
from holdfast.core.lease import Electorate
from holdfast.core.timing import Timing
from holdfast.errors import Fatal, Refused


@dataclass(frozen=True, slots=True)
class Entrusted:
    """:ivar lease: how long one is, in seconds
    :ivar incarnation: the run of the server that lives no longer than its lease, or ""
    """

    electorate: Electorate | None = None
    lease: float = Timing().lease
    incarnation: str = ""


_FORM = TypeAdapter(Entrusted)


class ElectorateFile:
    """Never replaces an electorate by an older one.

    :raises Fatal: when there is a file and it cannot be read
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
        """Whether that run of the server takes writes because its agent had it do so."""
        return bool(incarnation) and incarnation in (self._kept.incarnation, self._opened)

    def opens(self, incarnation: str) -> None:
        """That run is being opened; "": it follows again. Known to this agent, also where no lease is kept."""
        self._opened = incarnation

    def keep(self, electorate: Electorate, lease: float) -> None:
        """On disk when this returns.

        :raises Refused: it cannot be written, as from :meth:`enforcing`
        """
        with self._lock:
            known = merged(self._kept.electorate, electorate)
            self._write(replace(self._kept, electorate=known, lease=lease))

    def enforcing(self, incarnation: str) -> None:
        """That run of the server must not outlive its lease; "": none must."""
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
                f"it, and the manager sends it again ({' '.join(str(error).split())[:200]})"
            ) from error

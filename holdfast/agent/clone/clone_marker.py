"""What is kept on disk about a clone: that it is under way, what was saved before it, and what it brought."""

from __future__ import annotations

from pathlib import Path

from holdfast.agent.disk.saved import save_errant
from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.binlog.pending.errant import find
from holdfast.binlog.undo.describe import nameless
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.errors import Refused


class CloneMarker:
    """A file that exists from before the old data is touched until the copy is whole. It names the donor, and why the
    clone failed."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "cloning"

    def mark(self, donor: str, failed: str = "") -> None:
        """:raises Refused: when it cannot be written"""
        try:
            replace_durably(self._path, f"{donor}\n{' '.join(failed.split())}\n")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error

    def clear(self) -> None:
        remove_durably(self._path)

    def unfit(self) -> str:
        """Why the member must be cloned, or ""."""
        try:
            donor, _, failed = self._path.read_text(errors="replace").partition("\n")
        except FileNotFoundError:
            return ""
        what = f"its clone from {donor or 'another member'}"
        return f"{what} failed: {failed.strip()}" if failed.strip() else f"{what} was interrupted"


def save_unique(index: Path, present: GtidSet, folder: Path, now: float) -> Path:
    """Save what the binlogs hold and the primary lacks, as a binlog and as text for people.

    :param now: as in ``save_errant``
    :returns: the binlog
    :raises Refused: it cannot be read
    """
    errant = find(index, present)
    heading = [f"{errant}: this server had them and the primary had not, when it was cloned anew."]
    return save_errant(errant, folder, now, heading, nameless).binlog


def remember(state_dir: Path, datadir: Path, had: GtidSet) -> None:
    """Record which GTIDs a copy had, and of which server it is."""
    replace_durably(state_dir / "copied", f"{uuid_of(datadir)}\n{had}\n")


def copied(state_dir: Path, datadir: Path, flavor: Flavor) -> GtidSet:
    """The GTIDs that MySQL's data had when it was copied here; none if the data is another server's by now."""
    try:
        uuid, _, had = (state_dir / "copied").read_text().partition("\n")
        if flavor is Flavor.MYSQL and uuid and uuid == uuid_of(datadir):
            return parse(flavor, had.strip())
    except (OSError, ValueError):
        pass
    return parse(flavor, "")


def uuid_of(datadir: Path) -> str:
    try:
        text = (datadir / "auto.cnf").read_text()
    except OSError:
        return ""
    return text.rpartition("server-uuid=")[2].split("\n")[0].strip()

"""What MariaDB's engine has committed, according to the engine itself, while the server is down.

With each commit InnoDB notes where the transaction ends in the binlog: in the header of the rollback segment that it
used, one of 128. So a transaction of the binlog is not committed if neither its end nor the end of any later one stands
in one of these headers. (A later commit in the same segment overwrites the note, but stands after it in the binlog:
engine and binlog commit in one order.) MySQL keeps no such note; its engine keeps the GTID of each commit instead, and
shows it in ``gtid_executed`` after the start.

After a crash the notes may be in the redo log only. So the server's own program is run once, without binlog and without
a client: it recovers, finds prepared transactions and no binlog to decide on them, refuses to continue, and ends in
order, with all pages written and the prepared transactions still prepared (tested: ``test_server_committed.py``). The
start that follows has less to recover. If nothing is prepared the program reads its standard input, which is empty, and
ends.

Layouts: MariaDB 10.11 ``trx0sys.h``, ``trx0rseg.h``, ``fil0fil.h``.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from holdfast.errors import Refused
from holdfast.server.base import Deadline

OPTIONS = ("--bootstrap", "--skip-log-bin", "--innodb-fast-shutdown=1")
IN_DOUBT = "prepared transactions! It means"
"""What the server prints when it leaves prepared transactions as they are."""

SYSTEM = "ibdata1"
UNDO = "undo[0-9][0-9][0-9]"
SEGMENTS_PAGE = 5
SEGMENTS = 128
SEGMENTS_AT = 38 + 18
"""In the page of the transaction system: space and page of each segment's header, four bytes each."""
NOTE_AT = 38 + 4138
"""In a segment's header: offset in the binlog (8 bytes), its name (512, filled with zeros)."""
NAME_BYTES = 512
NOTHING = 0xFFFFFFFF
SPACE_ID_AT = 34
FLAGS_AT = 38 + 16
PAGE_TYPE_AT = 24
SYSTEM_PAGE_TYPES = (6, 7)
"""Types of pages that the system itself uses, and of the transaction system's page."""
KEY_AT = 26
"""Version of the key with which a page is encrypted; for ``full_crc32`` at the very beginning."""
FULL_CRC32 = 0x10


@dataclass(frozen=True, slots=True)
class Commit:
    """Where in the binlog a committed transaction ends.

    :ivar file: name of the binlog, without its folder
    """

    file: str
    end: int


def last_commits(
    command: Sequence[str], option_file: Path, datadir: Path, log: Path, deadline: Deadline
) -> frozenset[Commit]:
    """The last commit of each rollback segment.

    :param command: runs the server's program; :param log: its output goes there
    :raises Refused: it could not be run, or its files cannot be read: then nothing is known
    :raises CalledOff, DeadlinePassed: what was prepared is still prepared
    """
    _recover(command, option_file, log, deadline)
    try:
        return frozenset(_notes(datadir))
    except (OSError, struct.error) as error:
        raise Refused(f"the engine's files in {datadir} cannot be read: {error}") from error


def _recover(command: Sequence[str], option_file: Path, log: Path, deadline: Deadline) -> None:
    """Make the engine write what it knows to its files."""
    said = log.with_name(f"{log.name}.part")
    argv = [*command, f"--defaults-file={option_file}", *OPTIONS, f"--log-error={said}"]
    try:
        said.unlink(missing_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    except OSError as error:
        raise Refused(f"cannot run {argv[0]}: {error.strerror}") from error
    try:
        while process.poll() is None:
            deadline.check("asking the engine what it has committed")
            deadline.clock.sleep(0.005)
    except BaseException:
        process.kill()
        process.wait()
        raise
    text = said.read_text(errors="replace") if said.exists() else ""
    if process.returncode != 0 and IN_DOUBT not in text:
        last = next((each for each in reversed(text.splitlines()) if "[ERROR]" in each), "")
        raise Refused(f"the server's program ended with {process.returncode}: {last[:200]}")


def _notes(datadir: Path) -> Iterator[Commit]:
    with ExitStack() as opened:
        spaces = {0: opened.enter_context((datadir / SYSTEM).open("rb"))}
        for path in sorted(datadir.glob(UNDO)):
            file = opened.enter_context(path.open("rb"))
            spaces[int.from_bytes(_at(file, SPACE_ID_AT, 4), "big")] = file
        flags = int.from_bytes(_at(spaces[0], FLAGS_AT, 4), "big")
        page = _page(spaces[0], SEGMENTS_PAGE, flags)
        for number in range(SEGMENTS):
            space, where = struct.unpack_from(">II", page, SEGMENTS_AT + 8 * number)
            if where == NOTHING:
                continue
            if space not in spaces:
                raise Refused(f"rollback segment {number} stands in a file that was not found")
            header = _page(spaces[space], where, flags)
            (end,) = struct.unpack_from(">Q", header, NOTE_AT)
            name = header[NOTE_AT + 8 : NOTE_AT + 8 + NAME_BYTES].split(b"\0")[0]
            if name:
                yield Commit(os.path.basename(os.fsdecode(name)), end)


def _page(file: BinaryIO, number: int, flags: int) -> bytes:
    """:param flags: of the file's first page: those of ``full_crc32``, or the older ones
    :raises Refused: it does not exist, or it is encrypted
    """
    full = bool(flags & FULL_CRC32)
    shift = flags & 0xF if full else flags >> 6 & 0xF
    size = 512 << shift if shift else 16384
    page = _at(file, number * size, size)
    if len(page) < size or int.from_bytes(page[4:8], "big") != number:
        raise Refused(f"page {number} of {file.name} is not what it should be")
    key = page[:4] if full else page[KEY_AT : KEY_AT + 4]
    kind = int.from_bytes(page[PAGE_TYPE_AT : PAGE_TYPE_AT + 2], "big")
    if any(key) or kind not in SYSTEM_PAGE_TYPES:
        raise Refused(f"page {number} of {file.name} is encrypted, or of an unknown kind")
    return page


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    return os.pread(file.fileno(), length, offset)

"""Builds binlog files for tests; the reader must find in them what was put in."""

from __future__ import annotations

import struct
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from holdfast.binlog.events.group import FileEnd, Group, GroupEnding
from holdfast.binlog.events.gtid_event import Gtid, MariadbFlags, MariadbGtid, MysqlGtid
from holdfast.binlog.events.reader import open_binlog
from holdfast.core.gtid import Flavor

UUID_A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
INNODB = MariadbFlags.TRANSACTIONAL
STATUS_XID = b"\x11" + struct.pack("<Q", 77)


def mysql(number: int, tag: str = "") -> MysqlGtid:
    return MysqlGtid(UUID_A, tag, number)


def mariadb(number: int) -> MariadbGtid:
    return MariadbGtid(0, 7, number)


def gtid(flavor: Flavor, number: int) -> Gtid:
    return mysql(number) if flavor is Flavor.MYSQL else mariadb(number)


@dataclass
class Builder:
    """Appends events to a binlog image in memory."""

    flavor: Flavor
    checksum: bool = True
    in_use: bool = True
    data: bytearray = field(default_factory=lambda: bytearray(b"\xfebin"))

    def __post_init__(self) -> None:
        name = b"10.11.19-MariaDB-log" if self.flavor is Flavor.MARIADB else b"9.7.4"
        types = 171 if self.flavor is Flavor.MARIADB else 42
        body = struct.pack("<H50sIB", 4, name, 0, 19) + bytes(types) + bytes([self.checksum])
        # the checksum of this event is always there, and does not cover the in-use mark
        self.event(15, body + (b"" if self.checksum else bytes(4)))
        if self.in_use:
            self.data[21] |= 1

    def event(self, kind: int, body: bytes = b"", server_id: int = 7) -> Builder:
        size = 19 + len(body) + (4 if self.checksum else 0)
        end = (len(self.data) + size) & 0xFFFFFFFF
        raw = struct.pack("<IBIIIH", 1_700_000_000, kind, server_id, size, end, 0) + body
        self.data += raw + (struct.pack("<I", zlib.crc32(raw)) if self.checksum else b"")
        return self

    def query(self, text: str, status: bytes = b"") -> Builder:
        head = struct.pack("<IIBHH", 1, 0, 4, 0, len(status))
        return self.event(2, head + status + b"test\0" + text.encode())

    def opening(self, gtid: Gtid, flags: int = INNODB, server_id: int = 7) -> Builder:
        if isinstance(gtid, MariadbGtid):
            body = struct.pack("<QIB6x", gtid.sequence, gtid.domain, flags)
            return self.event(162, body, gtid.server_id)
        sid = UUID(gtid.uuid).bytes
        if not gtid.tag:
            return self.event(33, struct.pack("<B16sqB", 1, sid, gtid.sequence, 0), server_id)
        fields = [varlen(0), varlen(1), varlen(1), *map(varlen, sid), varlen(2)]
        fields += [varlen(gtid.sequence << 1), varlen(3), varlen(len(gtid.tag))]
        return self.event(
            42, varlen(1) + varlen(99) + varlen(0) + b"".join(fields) + gtid.tag.encode()
        )

    def transaction(self, gtid: Gtid, rows: int = 1, server_id: int = 7) -> Builder:
        """:param server_id: on MySQL, of the server that issued it; MariaDB's GTID contains it. 7 is the binlog's own
        server"""
        self.opening(gtid, server_id=server_id)
        if isinstance(gtid, MysqlGtid):
            self.query("BEGIN")
        for _ in range(rows):
            self.event(19, b"map").event(30, b"row" * 50)
        return self.event(16, bytes(8))

    def statement(self, gtid: Gtid, text: str) -> Builder:
        """One statement that is a transaction of its own."""
        return self.opening(gtid, MariadbFlags.STANDALONE | MariadbFlags.DDL).query(text)

    def empty(self, gtid: Gtid) -> Builder:
        """On MySQL."""
        return self.opening(gtid).query("BEGIN").query("COMMIT")

    def rotate(self, name: str = "binlog.000002") -> Builder:
        self.data[21] &= 0xFE
        return self.event(4, struct.pack("<Q", 4) + name.encode())

    def stop(self) -> Builder:
        self.data[21] &= 0xFE
        return self.event(3)

    def checkpoint(self, name: str) -> Builder:
        return self.event(161, struct.pack("<I", len(name)) + name.encode())

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path


def varlen(number: int) -> bytes:
    extra = max(0, -(-number.bit_length() // 7) - 1) if number else 0
    if extra >= 8:
        return b"\xff" + number.to_bytes(8, "little")
    return ((number << (extra + 1)) | ((1 << extra) - 1)).to_bytes(extra + 1, "little")


def read(path: Path) -> tuple[list[Group], FileEnd]:
    with open_binlog(path) as log:
        *groups, end = log.groups()
    assert isinstance(end, FileEnd)
    return [group for group in groups if isinstance(group, Group)], end


gtids = st.one_of(
    st.builds(
        MysqlGtid,
        st.uuids().map(str),
        st.sampled_from(["", "a", "deploy_2026"]),
        st.integers(1, 2**63 - 2),
    ),
)
mariadb_gtids = st.builds(
    MariadbGtid, st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(1, 2**64 - 1)
)


@given(st.one_of(st.lists(gtids, max_size=8), st.lists(mariadb_gtids, max_size=8)), st.booleans())
def test_every_transaction_is_read_as_it_was_written(names: list[Gtid], checksum: bool) -> None:
    is_mariadb = bool(names) and isinstance(names[0], MariadbGtid)
    builder = Builder(Flavor.MARIADB if is_mariadb else Flavor.MYSQL, checksum)
    bounds = []
    for name in names:
        start = len(builder.data)
        builder.transaction(name)
        bounds.append((start, len(builder.data)))
    with tempfile.TemporaryDirectory() as folder:
        groups, end = read(builder.write(Path(folder) / "b.000001"))
    assert [group.gtid for group in groups] == names
    assert [(group.offset, group.end) for group in groups] == bounds
    assert all(group.ending is GroupEnding.XID for group in groups)
    assert end.size == len(builder.data)


@given(st.sampled_from(Flavor), st.booleans(), st.data())
def test_a_file_cut_anywhere_yields_its_whole_transactions_and_at_most_one_torn(
    flavor: Flavor, checksum: bool, data: st.DataObject
) -> None:
    builder = Builder(flavor, checksum)
    start = len(builder.data)
    ends = []
    for number in (1, 2, 3):
        builder.transaction(gtid(flavor, number))
        ends.append(len(builder.data))
    length = data.draw(st.integers(start, len(builder.data)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.000001"
        path.write_bytes(builder.data[:length])
        groups, _ = read(path)
    whole = [end for end in ends if end <= length]
    assert [group.end for group in groups if group.complete] == whole
    torn = [group for group in groups if not group.complete]
    assert len(torn) == (0 if length == (whole or [start])[-1] else 1)
    if torn:
        assert (torn[0].offset, torn[0].end) == ((whole or [start])[-1], length)

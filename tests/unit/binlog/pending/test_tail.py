"""Judging the binlogs of a crashed server: what is pending, and whether it may be cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.binlog.events.gtid_event import Gtid, MariadbFlags, MariadbGtid
from holdfast.binlog.files.index import read_index
from holdfast.binlog.pending.save import save
from holdfast.binlog.pending.tail import Clean, Pending, Remedy, Tail, Unsafe, inspect
from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from tests.unit.binlog.events.test_builder import INNODB, STATUS_XID, Builder, gtid, mariadb, mysql

Folder = Callable[..., Path]


def has(highest: int) -> Callable[[Gtid], bool]:
    """The new primary has the transactions up to this number."""
    return lambda gtid: gtid.sequence <= highest


@pytest.fixture
def binlogs(tmp_path: Path) -> Folder:
    """Writes files as binlog.000001 and so on, and their index; returns the index."""

    def write(*builders: Builder) -> Path:
        names = [f"binlog.{number:06d}" for number in range(1, len(builders) + 1)]
        for name, builder in zip(names, builders, strict=True):
            builder.write(tmp_path / name)
        index = tmp_path / "binlog.index"
        index.write_text("".join(f"./{name}\n" for name in names))
        return index

    return write


def with_transactions(flavor: Flavor, *numbers: int) -> Builder:
    builder = Builder(flavor)
    for number in numbers:
        builder.transaction(gtid(flavor, number))
    return builder


def unsafe(tail: Tail, remedy: Remedy, said: str) -> None:
    assert isinstance(tail, Unsafe)
    assert tail.remedy is remedy, tail.reason
    assert said in tail.reason
    assert tail.reason.endswith(remedy.value)


@pytest.mark.parametrize("flavor", Flavor)
def test_nothing_is_pending_if_the_new_primary_has_all(binlogs: Folder, flavor: Flavor) -> None:
    assert inspect(binlogs(with_transactions(flavor, 1, 2, 3)), has(3)) == Clean()


@pytest.mark.parametrize("flavor", Flavor)
def test_a_clean_shutdown_with_nothing_pending_is_clean(binlogs: Folder, flavor: Flavor) -> None:
    assert inspect(binlogs(with_transactions(flavor, 1, 2).stop()), has(2)) == Clean()


@pytest.mark.parametrize("flavor", Flavor)
def test_binlogs_without_any_transaction_are_clean(binlogs: Folder, flavor: Flavor) -> None:
    assert inspect(binlogs(Builder(flavor).rotate(), Builder(flavor)), has(0)) == Clean()


@pytest.mark.parametrize("flavor", Flavor)
def test_what_was_applied_from_another_server_is_committed(binlogs: Folder, flavor: Flavor) -> None:
    """A crashed replica holds what its primary got no acknowledgement for, and another member was promoted."""
    builder = with_transactions(flavor, 1, 2)
    other = mysql(3) if flavor is Flavor.MYSQL else MariadbGtid(0, 8, 3)
    builder.transaction(other, server_id=8)
    index = binlogs(builder)
    unsafe(inspect(index, has(2)), Remedy.REWIND, "was applied from another server")
    assert inspect(index, has(3)) == Clean()


@pytest.mark.parametrize("flavor", Flavor)
def test_the_tail_begins_at_the_first_that_is_lacking(binlogs: Folder, flavor: Flavor) -> None:
    builder = with_transactions(flavor, 1, 2)
    start = len(builder.data)
    builder.transaction(gtid(flavor, 3)).transaction(gtid(flavor, 4))

    tail = inspect(binlogs(builder), has(2))

    assert isinstance(tail, Pending)
    assert (tail.start.file.name, tail.start.offset) == ("binlog.000001", start)
    assert tail.bytes == len(builder.data) - start
    assert (tail.summary.first, tail.summary.last) == (gtid(flavor, 3), gtid(flavor, 4))
    assert str(tail.summary) == f"2 transactions ({gtid(flavor, 3)} … {gtid(flavor, 4)})"


@pytest.mark.parametrize("flavor", Flavor)
def test_a_torn_end_belongs_to_the_tail(binlogs: Folder, flavor: Flavor, tmp_path: Path) -> None:
    builder = with_transactions(flavor, 1, 2, 3)
    start = len(builder.data)
    builder.transaction(gtid(flavor, 4))
    del builder.data[-7:]

    index = binlogs(builder)
    tail = inspect(index, has(2))
    assert isinstance(tail, Pending)
    assert tail.summary.torn
    assert tail.summary.transactions == 1
    assert tail.summary.last == gtid(flavor, 4)

    save(tail, tmp_path / "saved")
    saved = (tmp_path / "saved").read_bytes()
    assert saved.endswith(builder.data[tail.start.offset : start])

    torn_alone = inspect(index, has(4))  # even if the new primary has it: here it was never whole
    assert isinstance(torn_alone, Pending)
    assert torn_alone.start.offset == start
    assert torn_alone.pieces == ()


def test_a_torn_gtid_event_has_no_name(binlogs: Folder) -> None:
    builder = with_transactions(Flavor.MYSQL, 1)
    builder.opening(mysql(2))
    del builder.data[-30:]
    tail = inspect(binlogs(builder), has(1))
    assert isinstance(tail, Pending)
    assert str(tail.summary) == "0 transactions, torn"


def test_mariadb_may_have_rotated_with_transactions_waiting(
    binlogs: Folder, tmp_path: Path
) -> None:
    first = with_transactions(Flavor.MARIADB, 1).checkpoint("binlog.000001")
    start = len(first.data)
    first.transaction(mariadb(2)).rotate()
    second = Builder(Flavor.MARIADB).checkpoint("binlog.000001").transaction(mariadb(3)).rotate()
    third = Builder(Flavor.MARIADB).checkpoint("binlog.000001")

    tail = inspect(binlogs(first, second, third), has(1))

    assert isinstance(tail, Pending)
    assert (tail.start.file.name, tail.start.offset) == ("binlog.000001", start)
    assert tail.summary.transactions == 2
    assert tail.bytes == len(first.data) - start + len(second.data) + len(third.data)
    save(tail, tmp_path / "saved")
    saved = (tmp_path / "saved").read_bytes()
    assert saved.count(b"map") == 2
    assert saved[21] & 1 == 0
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / ".saved.part").exists()


def test_mariadb_recovery_that_begins_behind_the_tail_has_committed_it(binlogs: Folder) -> None:
    first = with_transactions(Flavor.MARIADB, 1, 2).rotate()
    second = Builder(Flavor.MARIADB).checkpoint("binlog.000002")
    unsafe(inspect(binlogs(first, second), has(1)), Remedy.REWIND, "binlog.000002 only")


def test_mysql_that_rotated_behind_the_tail_has_committed_it(binlogs: Folder) -> None:
    first = with_transactions(Flavor.MYSQL, 1, 2).rotate()
    tail = inspect(binlogs(first, Builder(Flavor.MYSQL)), has(1))
    unsafe(tail, Remedy.REWIND, "rotated")


def test_a_crash_amid_a_rotation_leaves_a_tail_on_mariadb_only(binlogs: Folder) -> None:
    tail = inspect(binlogs(with_transactions(Flavor.MARIADB, 1, 2).rotate()), has(1))
    assert isinstance(tail, Pending)
    tail = inspect(binlogs(with_transactions(Flavor.MYSQL, 1, 2).rotate()), has(1))
    unsafe(tail, Remedy.REWIND, "rotated")


@pytest.mark.parametrize("flavor", Flavor)
def test_a_tail_at_the_start_of_a_later_file_is_cut_there(binlogs: Folder, flavor: Flavor) -> None:
    later = with_transactions(flavor, 2)
    tail = inspect(
        binlogs(with_transactions(flavor, 1).rotate(), Builder(flavor).rotate(), later), has(1)
    )
    assert isinstance(tail, Pending)
    assert tail.start.file.name == "binlog.000003"


@pytest.mark.parametrize("flavor", Flavor)
def test_a_restart_since_the_crash_has_committed_the_tail(binlogs: Folder, flavor: Flavor) -> None:
    tail = inspect(binlogs(with_transactions(flavor, 1, 2), Builder(flavor)), has(1))
    unsafe(tail, Remedy.REWIND, "started again")
    assert isinstance(tail, Unsafe)
    assert tail.start is not None
    assert tail.start.file.name == "binlog.000001"


@pytest.mark.parametrize("flavor", Flavor)
def test_a_shutdown_has_committed_the_tail(binlogs: Folder, flavor: Flavor) -> None:
    tail = inspect(binlogs(with_transactions(flavor, 1, 2).stop()), has(1))
    unsafe(tail, Remedy.REWIND, "shut down")


@pytest.mark.parametrize("flavor", Flavor)
def test_a_last_file_that_is_not_in_use_has_been_recovered(binlogs: Folder, flavor: Flavor) -> None:
    builder = with_transactions(flavor, 1, 2)
    builder.data[21] &= 0xFE
    unsafe(inspect(binlogs(builder), has(1)), Remedy.REWIND, "recovery has run")


@pytest.mark.parametrize("flavor", Flavor)
def test_histories_that_interleave_are_not_cut(binlogs: Folder, flavor: Flavor) -> None:
    one_file = inspect(binlogs(with_transactions(flavor, 1, 2, 3)), lambda g: g.sequence != 2)
    unsafe(one_file, Remedy.CLONE, "histories differ")
    two_files = binlogs(with_transactions(flavor, 1, 2).rotate(), with_transactions(flavor, 3, 4))
    unsafe(inspect(two_files, lambda g: g.sequence in (1, 3)), Remedy.CLONE, "histories differ")


@pytest.mark.parametrize("flavor", Flavor)
def test_nothing_is_cut_without_a_common_transaction(binlogs: Folder, flavor: Flavor) -> None:
    unsafe(inspect(binlogs(with_transactions(flavor, 1, 2)), has(0)), Remedy.CLONE, "nothing that")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (MariadbFlags.STANDALONE | MariadbFlags.DDL | INNODB, "data definition"),
        (MariadbFlags.STANDALONE, "cannot roll back"),
        (MariadbFlags.PREPARED_XA | INNODB, "XA"),
        (MariadbFlags.COMPLETED_XA | INNODB, "XA"),
        (INNODB, "does not end"),
    ],
)
def test_what_mariadb_does_not_roll_back_is_not_cut(binlogs: Folder, flags: int, said: str) -> None:
    builder = with_transactions(Flavor.MARIADB, 1, 2)
    builder.opening(mariadb(3), flags).query("COMMIT")
    unsafe(inspect(binlogs(builder), has(1)), Remedy.CLONE, said)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda b: b.query("BEGIN").event(30, b"myisam").query("COMMIT"), "does not end"),
        (lambda b: b.query("XA START X'61',X'',1").event(38), "XA"),
        (lambda b: b.query("XA COMMIT X'61',X'',1"), "statement that cannot"),
        (lambda b: b.event(40, b"zstd"), "compressed"),
        (lambda b: b.query("DROP TABLE m"), "statement that cannot"),
        (lambda b: b.query("DROP DATABASE d", STATUS_XID), "statement that cannot"),
        (lambda b: b.query("CREATE TABLESPACE s", STATUS_XID), "statement that cannot"),
    ],
)
def test_what_mysql_does_not_roll_back_is_not_cut(
    binlogs: Folder, build: Callable[[Builder], Builder], said: str
) -> None:
    builder = with_transactions(Flavor.MYSQL, 1, 2)
    build(builder.opening(mysql(3)))
    unsafe(inspect(binlogs(builder), has(1)), Remedy.CLONE, said)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a INT)",
        "create unique index i on t (a)",
        "/* app */ ALTER TABLE t ADD b INT",
        "DROP TABLE `t` /* generated by server */",
        "CREATE DEFINER=`root`@`localhost` PROCEDURE p() SELECT 1",
        "CREATE ALGORITHM=UNDEFINED DEFINER=`r`@`%` SQL SECURITY DEFINER VIEW `v` AS SELECT 1",
        "GRANT SELECT ON *.* TO u",
    ],
)
def test_an_atomic_mysql_ddl_is_cut(binlogs: Folder, statement: str) -> None:
    builder = with_transactions(Flavor.MYSQL, 1)
    builder.opening(mysql(2)).query(statement, STATUS_XID)
    assert isinstance(inspect(binlogs(builder), has(1)), Pending)


def test_what_cannot_be_read_is_left_alone(binlogs: Folder) -> None:
    encrypted = with_transactions(Flavor.MARIADB, 1).event(164, bytes(17))
    unsafe_tail = inspect(binlogs(encrypted), has(0))
    assert isinstance(unsafe_tail, Unsafe)
    assert "encrypted" in unsafe_tail.reason
    anonymous = Builder(Flavor.MYSQL).event(34, bytes(25)).query("BEGIN").event(16, bytes(8))
    without_name = inspect(binlogs(anonymous), has(0))
    assert isinstance(without_name, Unsafe)
    assert "without a GTID" in without_name.reason


def test_files_older_than_one_that_is_all_present_are_not_read(binlogs: Folder) -> None:
    index = binlogs(
        Builder(Flavor.MARIADB),
        with_transactions(Flavor.MARIADB, 1).rotate(),
        with_transactions(Flavor.MARIADB, 2),
    )
    (index.parent / "binlog.000001").write_bytes(b"not read")
    assert isinstance(inspect(index, has(1)), Pending)


def test_an_index_that_is_missing_or_names_missing_files_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "binlog.index"
    with pytest.raises(Refused, match="does not exist"):
        inspect(index, has(0))
    index.write_text("/nowhere/binlog.000001\n")
    with pytest.raises(Refused, match="restore it"):
        inspect(index, has(0))


def test_older_files_that_were_removed_by_hand_count_as_purged(binlogs: Folder) -> None:
    flavor = Flavor.MARIADB
    files = [with_transactions(flavor, number).rotate() for number in (1, 2)]
    index = binlogs(*files, with_transactions(flavor, 3, 4))
    (first, second, third) = read_index(index)
    first.unlink()
    assert read_index(index) == (second, third)
    assert isinstance(inspect(index, has(3)), Pending)
    assert isinstance(inspect(index, has(2)), Pending)
    second.unlink()
    assert read_index(index) == (third,), "a gap: what is before it does not count either"
    found = inspect(index, has(2))
    assert isinstance(found, Unsafe)
    assert "nothing that is in these binlogs" in found.reason
    with pytest.raises(Refused, match="restore it"):
        read_index(index, whole=True)
    third.unlink()
    with pytest.raises(Refused, match="restore it"):
        read_index(index)


def test_index_entries_may_be_absolute_or_relative_to_the_data_directory(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with_transactions(Flavor.MARIADB, 1).rotate().write(logs / "b.000001")
    with_transactions(Flavor.MARIADB, 2).write(logs / "b.000002")
    index = logs / "b.index"
    index.write_text(f"{logs}/b.000001\n./logs/b.000002\n")
    tail = inspect(index, has(1))
    assert isinstance(tail, Pending)
    assert tail.start.file == logs / "b.000002"


def test_saving_never_replaces_a_file(binlogs: Folder, tmp_path: Path) -> None:
    tail = inspect(binlogs(with_transactions(Flavor.MYSQL, 1, 2)), has(1))
    assert isinstance(tail, Pending)
    target = tmp_path / "saved"
    (tmp_path / ".saved.part").write_text("left by an agent that died")
    save(tail, target)
    first = target.read_bytes()
    with pytest.raises(Refused, match="exists already"):
        save(tail, target)
    assert target.read_bytes() == first

"""The Inventory command: which transactions the files of a stopped server hold, received ones included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.agent.clone.clone_marker import copied, uuid_of
from holdfast.agent.clone.unique import HEADLESS_BYTES
from holdfast.binlog.events.reader import Unreadable
from holdfast.binlog.files.index import read_index
from holdfast.binlog.files.place import logged_at
from holdfast.binlog.files.relay import received
from holdfast.config.schema import ServerConfig
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.server.base import Deadline
from holdfast.server.process import boot


def take_inventory(own: ServerConfig, state_dir: Path, deadline: Deadline) -> GtidSet:
    """Read its binlog, the GTIDs of its copy (MySQL's binlog does not contain them), and its relay log.

    :raises Refused: a file cannot be read, so nothing is known
    """

    def check() -> None:
        deadline.check("reading the server's files")

    had = copied(state_dir, own.datadir, own.flavor).union(logged(own.binlog_index, own.flavor))
    check()
    files = boot.read(own.option_file, own.flavor, "", own.datadir)
    for index in relay_indexes(own.datadir, files):
        had = had.union(received(read_index(index, whole=True), own.flavor, check))
    return had.not_of(_origin(own, files))


def _origin(own: ServerConfig, files: Boot) -> str:
    """The stream of what the server issues; "" where that cannot be determined."""
    if own.flavor is Flavor.MYSQL:
        return uuid_of(own.datadir)
    server_id = files.options.get("server_id", "1")  # the server's own default
    return f"0-{server_id}"


def logged(index: Path, flavor: Flavor) -> GtidSet:
    """All that was ever in the binlog, by the newest file that says what came before it."""
    for file in reversed(read_index(index) if index.exists() else ()):
        size = file.stat().st_size
        try:
            return logged_at(file, size)
        except Unreadable:
            if size >= HEADLESS_BYTES[flavor]:
                raise
    return parse(flavor, "")


def relay_indexes(datadir: Path, files: Boot) -> Iterator[Path]:
    """The index of the relay log, if there is one: by the server's options, or by its default name."""
    name = files.options.get("relay_log_index") or files.options.get("relay_log")
    if not name:
        yield from sorted(datadir.glob("*relay-bin.index"))
        return
    for index in (datadir / f"{name}.index", (datadir / name).with_suffix(".index")):
        if index.is_file():
            yield index
            return

"""How fast a member is cloned, against ``cp -a`` of the same data directory on the same disk, in turn.

    python bench/clone.py --server mariadb --size 1000 --rounds 5 --json out.json

Two hosts on loopback, real servers and agents. A clone is measured from the command to its end, with saving, stopping,
copying, preparing and starting; ``copy`` is the part in which the data arrives. The page cache is dropped before each
run where that is allowed. During the clone one client writes on the donor: its longest wait is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from holdfast.agent.disk.datadir import size
from holdfast.core.commands import Fence
from holdfast.core.gtid import Flavor
from tests.integration.test_agent_real import Member
from tests.integration.test_clone import Pair, begin, sql

CHUNK = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=[each.value for each in Flavor], default="mariadb")
    parser.add_argument("--size", type=int, default=500, help="megabytes of data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hf", dir=given.folder) as folder:
        members: list[Member] = []
        try:
            flavor = Flavor(given.server)
            for number in (1, 2):
                members.append(Member(Path(folder) / f"m{number}", flavor, number))
            found = measure(Pair(*members), given.size, given.rounds, Path(folder))
        finally:
            for each in members:
                each.end()
    print(report(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(pair: Pair, megabytes: int, rounds: int, folder: Path) -> dict[str, Any]:
    begin(pair.first)
    load(pair.first, megabytes)
    megabytes_found = copied_bytes(pair.first.datadir) / 1e6
    found: dict[str, Any] = {"server": pair.first.flavor.value, "megabytes": megabytes_found}
    rows: list[dict[str, float]] = []
    for number in range(rounds):
        row = {"cp": timed_cp(pair.first.datadir, folder / "copy")}
        pair.do(Fence())
        for path in pair.second.datadir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        drop_cache()
        writer = Writer(pair.first)
        begun = time.monotonic()
        pair.do(pair.clone())
        row |= {"copy": follow(pair, begun)}
        pair.cloned()
        row["clone"] = time.monotonic() - begun
        row["longest_write_ms"] = writer.end() * 1000
        row["speed_to_cp"] = row["cp"] / row["clone"]
        row["copy_speed_to_cp"] = row["cp"] / row["copy"]
        rows.append(row)
        print(f"round {number + 1}: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items()))
    found["rounds"] = rows
    found["summary"] = {key: summary([row[key] for row in rows]) for key in rows[0]}
    return found


def follow(pair: Pair, begun: float) -> float:
    """Seconds until the data has arrived: until the job's count of bytes grew last."""
    last, most = begun, 0
    while (progress := pair.second.seen().state.progress) is not None:
        if progress.done > most:
            last, most = time.monotonic(), progress.done
        time.sleep(0.02)
    return last - begun


def load(member: Member, megabytes: int) -> None:
    """Write rows that do not compress well; then have the server flush its pages."""
    with closing(member.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE load_ (n INT AUTO_INCREMENT PRIMARY KEY, filler LONGBLOB)")
        for _ in range(megabytes):
            cursor.execute("INSERT INTO load_ (filler) VALUES (%s)", (os.urandom(CHUNK),))
    newest = sorted(member.datadir.glob("binlog.0*"))[-1].name
    sql(member, "SET GLOBAL innodb_max_dirty_pages_pct = 0", f"PURGE BINARY LOGS TO '{newest}'")
    time.sleep(5)


def copied_bytes(datadir: Path) -> int:
    return size(datadir, lambda name: name.startswith(("binlog.", "relay")))


def timed_cp(datadir: Path, target: Path) -> float:
    """Copy the data directory without its binlogs, which a clone does not copy either; on disk at the end, as a clone
    is."""
    drop_cache()
    target.mkdir()
    names = [path for path in datadir.iterdir() if not path.name.startswith(("binlog.", "relay"))]
    begun = time.monotonic()
    subprocess.run(["cp", "-a", "--", *map(str, names), str(target)], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)
    seconds = time.monotonic() - begun
    shutil.rmtree(target)
    return seconds


def drop_cache() -> None:
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


class Writer:
    """One client that writes without a pause."""

    def __init__(self, member: Member) -> None:
        self._client = member.client()
        self._stop = threading.Event()
        self._longest = 0.0
        with self._client.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS w (n INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> float:
        """The longest time that a write took, in seconds."""
        self._stop.set()
        self._thread.join()
        self._client.close()
        return self._longest

    def _run(self) -> None:
        with self._client.cursor() as cursor:
            while not self._stop.wait(0.002):
                begun = time.monotonic()
                cursor.execute("INSERT INTO w (a) VALUES (1)")
                self._longest = max(self._longest, time.monotonic() - begun)


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p95": at95,
        "max": ordered[-1],
    }


def report(found: dict[str, Any]) -> str:
    lines = [f"{found['server']}, {found['megabytes']:.0f} MB, {len(found['rounds'])} rounds"]
    lines += [f"{'':18}{'min':>9}{'median':>9}{'p95':>9}{'max':>9}"]
    for key, row in found["summary"].items():
        lines.append(
            f"{key:18}" + "".join(f"{row[k]:9.2f}" for k in ("min", "median", "p95", "max"))
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

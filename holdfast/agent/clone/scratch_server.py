"""MySQL's CLONE into a folder beside the old data, made by a separate server without data.

CLONE INSTANCE without a folder drops the data of the server that runs it before anything has arrived. With DATA
DIRECTORY it leaves that data alone. So a small server, created for the clone beside the old data, fetches the copy, and
the old data is removed when the copy is whole. That server listens on a socket only, and ends with the clone, however
the clone ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from holdfast.agent.clone.fetch import DonorAgent, DonorWatch
from holdfast.agent.disk import datadir as files
from holdfast.agent.runtime.job import Job
from holdfast.agent.runtime.leftover import end_leftover
from holdfast.config.schema import ServerConfig
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.server.base import Account, Source
from holdfast.server.data.clone import FILE_SYNC, Recipient
from holdfast.server.process.initialise import (
    ELSEWHERE,
    administrator,
    initialise_mysql,
    last_words,
)
from holdfast.server.process.option_copy import copy_options

INITIALISE_SECONDS = 300.0
START_SECONDS = 300.0
CLONE_SECONDS = 30 * 86400.0
END_SECONDS = 30.0
LOOK_SECONDS = 0.25
BUFFER_POOL = "128M"
"""Small: the server copies files without its buffer pool."""


def end_former(datadir: Path) -> None:
    """Kill the scratch server that a killed agent left behind."""
    end_leftover(f"--datadir={datadir / files.SCRATCH}")


@contextlib.contextmanager
def scratch_server(
    job: Job, own: ServerConfig, admin: Account, state_dir: Path, lock: int
) -> Iterator[Recipient]:
    """A server without data, with the options of the member's own server.

    :param state_dir: for its option file and log
    :param lock: a file descriptor that it holds open while it runs
    :raises Refused: it cannot be made, or does not start
    """
    folder = files.fresh(own.datadir, files.SCRATCH)
    options, log = state_dir / "scratch.cnf", state_dir / "scratch.log"
    socket = own.socket.with_name(f"{own.socket.name}.clone")
    process: subprocess.Popen[bytes] | None = None
    try:
        initialise_mysql(
            own.command,
            own.option_file,
            folder,
            state_dir,
            administrator(admin),
            job.deadline(INITIALISE_SECONDS),
            (lock,),
            lambda path: files.belong(path, own.datadir),
        )
        copy_options(own.option_file, options, without=ELSEWHERE, loose=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *own.command,
                    f"--defaults-file={options}",
                    f"--datadir={folder}",
                    f"--socket={socket}",
                    f"--pid-file={folder / 'scratch.pid'}",
                    "--skip-networking",
                    "--disable-log-bin",
                    "--loose-mysqlx=OFF",
                    "--event-scheduler=OFF",
                    f"--innodb-buffer-pool-size={BUFFER_POOL}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
            )
        recipient = Recipient(Flavor.MYSQL, socket, admin)
        with contextlib.closing(recipient):
            _until_up(job, process, recipient, log)
            yield recipient
    finally:
        if process is not None:
            process.kill()  # it holds no data worth keeping
            process.wait()
        options.unlink(missing_ok=True)
        for left in (socket, socket.with_name(f"{socket.name}.lock")):
            left.unlink(missing_ok=True)
        files.drop(own.datadir, files.SCRATCH)


def copy_from(
    job: Job, recipient: Recipient, source: Source, donor: DonorAgent, target: Path
) -> None:
    """Run CLONE in a thread and supervise it from here: CLONE tries for minutes to reach a donor that is gone, and
    waits without a time limit for a donor's commits.

    :raises Refused: the copy was not made; nothing of this clone is left on the donor, if its agent could be reached
    """
    failed: list[HoldfastError] = []
    lives = DonorWatch(donor, job)
    # ends what an earlier clone of this member left
    donor.free(source.account.user, job.deadline(END_SECONDS))

    def clone() -> None:
        try:
            recipient.clone(source, target, job.deadline(CLONE_SECONDS))
        except HoldfastError as error:
            failed.append(error)

    thread = threading.Thread(target=clone, name="CLONE", daemon=True)
    thread.start()
    what = job.what
    try:
        while thread.is_alive():
            job.check()
            done, stage = 0, ""
            with contextlib.suppress(HoldfastError):
                copied = recipient.copied(job.deadline(1.0))
                if copied is not None:
                    done, stage = copied.done, copied.stage
                    job.what = f"{what} ({stage.lower()})"
                    job.progress(done, copied.total)
            lives.look(done, stage, working_here=stage == FILE_SYNC)
            thread.join(LOOK_SECONDS)
        if failed:
            raise failed[0]
        recipient.whole(job.deadline(END_SECONDS))
    except BaseException:
        # MySQL's donor notices only after a minute, or when no commit waits, that nobody receives the copy any more
        with contextlib.suppress(HoldfastError):
            donor.free(source.account.user)
        raise
    finally:
        job.what = what


def _until_up(job: Job, process: subprocess.Popen[bytes], recipient: Recipient, log: Path) -> None:
    end = job.clock.monotonic() + START_SECONDS
    while True:
        try:
            return recipient.ping(job.deadline(5.0))
        except Unreachable:
            if process.poll() is not None or job.clock.monotonic() > end:
                raise Refused(f"a server for the copy does not start: {last_words(log)}") from None
        job.pause(0.05)

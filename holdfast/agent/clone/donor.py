"""Gives a copy of the running MariaDB server's data to another member's agent.

``POST /v1/backup/end`` {"account": NAME} ends the copy that a MySQL server still gives to that account.

``GET /v1/data`` says how large a copy would be; a MySQL server gives the copy without its agent.

``GET /v1/backup?pack=auto|never`` answers with a stream of frames (see ``frames.py``): an OPENING that says how much is
to be expected, what ``mariadb-backup`` writes, and an END that says how it ended and which GTIDs the copy has. The
server serves clients all the time; at the end its commits are held for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse, StreamingResponse

from holdfast.agent.clone.frames import ALIVE, FrameKind, FrameSender
from holdfast.agent.disk.datadir import size
from holdfast.agent.runtime.leftover import end_leftover
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.files.place import logged_at
from holdfast.clock import Clock
from holdfast.config.schema import ServerConfig
from holdfast.config.values import StrictModel
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError, Refused
from holdfast.http.serving import error_response
from holdfast.log import say
from holdfast.server.base import Account, Deadline
from holdfast.server.data.backup import find_tools, option_copy_for_backup, widen
from holdfast.server.data.clone import end_clones, left_empty
from holdfast.server.process.initialise import last_words

OPTIONS = "my.cnf"
CHUNK_BYTES = 1024 * 1024
ALIVE_SECONDS = 3.0
"""After this much silence the stream says that the donor is still there."""
END_SECONDS = 3.0
"""How long it may take to end a copy that nobody takes any more."""
LOOK_SECONDS = 5.0
"""How long the server may take to list its tables."""
FIRST_GUESS_SECONDS = 0.004
"""First estimate of the time that compressing a chunk at level 1 takes."""
PLACE = re.compile(rb"binlog position: filename '([^']+)', position '(\d+)'")

logger = logging.getLogger(__name__)


class EndCopy(StrictModel):
    """:ivar account: the replication account of the member that stopped taking the copy"""

    account: str


class CopyGiver:
    """:param unable: why nothing can be copied from here now, or \"\""""

    def __init__(
        self,
        published: PublishedState,
        server: ServerConfig,
        admin: Account,
        state_dir: Path,
        unable: Callable[[], str],
    ) -> None:
        self._published = published
        self._clock = published.clock
        self._server = server
        self._admin = admin
        self._scratch = state_dir / "backup"
        self._unable = unable
        self._giving = False
        if server.flavor is Flavor.MARIADB:
            # a former tool that waits for a commit would hold up all further commits
            end_leftover(f"--target-dir={self._scratch}")

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.get("/v1/backup")
        async def backup(pack: str = "auto") -> Response:
            """Returns a copy of the server's data, in frames."""
            if self._giving:
                busy = f"{self._published.state.name} gives a copy to another member"
                return error_response(503, "Refused", busy)
            try:
                process = self._begin()
            except (Refused, OSError) as error:
                return error_response(409, "Refused", f"{self._published.state.name}: {error}")
            frames = self._frames(process, pack != "never")
            return StreamingResponse(frames, media_type="application/octet-stream")

        @router.post("/v1/backup/end")
        def end(asked: EndCopy) -> Response:
            """MySQL: ends the clones that an account has begun here."""
            if self._server.flavor is Flavor.MYSQL and self._published.state.up:
                try:
                    deadline = Deadline(END_SECONDS, clock=self._clock)
                    end_clones(self._server.socket, self._admin, asked.account, deadline)
                except HoldfastError as error:
                    return error_response(409, "Refused", f"{self._published.state.name}: {error}")
            return Response()

        @router.get("/v1/data")
        def data() -> Response:
            """Returns how many bytes a copy of the server's data takes, and which tables it would leave empty."""
            left: list[str] = []
            if self._server.flavor is Flavor.MYSQL:
                try:
                    deadline = Deadline(LOOK_SECONDS, clock=self._clock)
                    left = left_empty(self._server.socket, self._admin, deadline)
                except HoldfastError as error:
                    return error_response(409, "Refused", f"{self._published.state.name}: {error}")
            found = size(self._server.datadir, self._is_not_copied)
            return JSONResponse({"bytes": found, "left_empty": left})

        return router

    def _begin(self) -> subprocess.Popen[bytes]:
        if self._server.flavor is not Flavor.MARIADB:
            raise Refused("MySQL's server gives copies itself, through its CLONE plugin")
        unable = self._unable() or ("" if self._published.state.up else "its server is not up")
        if unable:
            raise Refused(f"nothing can be copied from it: {unable}")
        tools = find_tools(self._server.command, self._server.backup_command)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700)
        options = self._scratch / OPTIONS
        option_copy_for_backup(self._server.option_file, self._server.socket, self._admin, options)
        with (self._scratch / "log").open("wb") as log:
            process = subprocess.Popen(
                tools.making(options, self._scratch),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._giving = True
        say(logger, "a copy of the data is given to another member")
        return process

    async def _frames(self, process: subprocess.Popen[bytes], pack: bool) -> AsyncIterator[bytes]:
        copy = _Copy(process, self._opening, self._end, self._clock)
        try:
            copy.start()
            while frame := await asyncio.to_thread(copy.next, ALIVE_SECONDS):
                begun = self._clock.monotonic()
                yield frame
                # compress only where the connection is slower than the compression
                copy.packed = pack and self._clock.monotonic() - begun > copy.making_seconds
        finally:
            # no await here: the task of a lost connection is cancelled over and over
            _kill(process)
            threading.Thread(target=self._ended, args=(copy,), daemon=True).start()

    def _ended(self, copy: _Copy) -> None:
        copy.stop()
        # the file holds the administrator's password
        (self._scratch / OPTIONS).unlink(missing_ok=True)
        self._giving = False

    def _opening(self) -> Mapping[str, Any]:
        version = self._published.state.version
        return {"bytes": size(self._server.datadir, self._is_not_copied), "version": version}

    def _end(self, status: int) -> Mapping[str, Any]:
        """How the tool ended, and which GTIDs the copy has: all that had been logged at the position that the tool
        names."""
        log = self._scratch / "log"
        if status != 0:
            return {"error": f"mariadb-backup ended with {status}: {last_words(log)}"}
        found = PLACE.findall(log.read_bytes())
        if not found:
            return {"error": "mariadb-backup does not say up to which place in the binlog it went"}
        name, offset = os.path.basename(os.fsdecode(found[-1][0])), int(found[-1][1])
        state = logged_at(self._server.binlog_index.with_name(name), offset)
        return {"state": str(state), "file": name, "offset": offset}

    def _is_not_copied(self, name: str) -> bool:
        return name.startswith((f"{self._server.binlog_index.stem}.", "relay", "ibtmp"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the tool, and the program that runs it where ``backup_command`` names one. A tool that waits for the
    server's commits does not notice that its reader is gone, and holds further commits up."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Copy:
    """What the tool writes, made into frames by a separate thread.

    :ivar packed: compress the next chunks
    :ivar making_seconds: how long the compression of a chunk takes
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        opening: Callable[[], Mapping[str, Any]],
        end: Callable[[int], Mapping[str, Any]],
        clock: Clock,
    ) -> None:
        self.packed = False
        self.making_seconds = FIRST_GUESS_SECONDS
        assert process.stdout is not None
        self._process, self._written = process, process.stdout
        self._opening = opening
        self._end = end
        self._clock = clock
        self._sender = FrameSender()
        self._ready: queue.Queue[bytes] = queue.Queue(maxsize=4)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="give a copy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next(self, seconds: float) -> bytes:
        """Return the next frame, an ALIVE frame after ``seconds`` without one, or nothing at the end."""
        try:
            return self._ready.get(timeout=seconds)
        except queue.Empty:
            return ALIVE if self._thread.is_alive() else b""

    def stop(self) -> None:
        """Call after the process was killed, or has ended."""
        self._stopped = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get_nowait()
            self._thread.join(0.05)
        self._written.close()
        self._process.wait()

    def _run(self) -> None:
        try:
            self._put(self._sender.fields(FrameKind.OPENING, **self._opening()))
            total = 0
            widen(self._written)
            while chunk := self._written.read(CHUNK_BYTES):
                total += len(chunk)
                packed, begun = self.packed, self._clock.monotonic()
                frame = self._sender.data(chunk, packed)
                if packed:
                    self.making_seconds = self._clock.monotonic() - begun
                self._put(frame)
            said = self._end(self._process.wait())
            self._put(self._sender.fields(FrameKind.END, bytes=total, **said))
            if "error" in said:
                say(logger, f"the copy was not made: {said['error']}", logging.WARNING)
        except (HoldfastError, OSError) as error:
            say(logger, f"the copy was not made: {error}", logging.WARNING)
            self._put(self._sender.fields(FrameKind.END, error=str(error)))
        self._put(b"")

    def _put(self, frame: bytes) -> None:
        while not self._stopped:
            try:
                self._ready.put(frame, timeout=0.5)
                return
            except queue.Full:
                continue

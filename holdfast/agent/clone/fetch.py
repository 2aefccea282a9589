"""Fetches a copy of a MariaDB server's data from the donor's agent, and brings it to one moment."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from holdfast.agent.clone.frames import BrokenStream, Frame, FrameKind, received
from holdfast.agent.disk import datadir as files
from holdfast.agent.runtime.job import Job
from holdfast.clock import Clock
from holdfast.config.schema import ServerConfig, is_loopback
from holdfast.core.view import MemberState
from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.http.wire import StateReply
from holdfast.server.base import Deadline
from holdfast.server.data.backup import BackupTools, binlog_place, find_tools, widen
from holdfast.server.process.initialise import last_words, run_to_end
from holdfast.tls import Credentials, explain

SILENCE_SECONDS = 20.0
"""After this much silence a donor is given up: a live donor sends something every three seconds."""
STALL_SECONDS = 60.0
"""A copy is cancelled after so long without a byte from a donor that is alive. On MariaDB a donor's commits are held
while its backup waits for one of them."""
FIRST_BYTE_SECONDS = 300.0
"""The same before the first byte: of 100,000 tables each is opened first."""
PREPARE_SECONDS = 30 * 86400.0
PREPARE_BYTES = 256 * 1024 * 1024
UNPACK_SECONDS = 600.0
ANSWER_SECONDS = 10.0
READ_BYTES = 1024 * 1024
LARGEST_REFUSAL_BYTES = 65536
LOOK_SECONDS = 2.0
BUSY = 503
BUSY_SECONDS = 20.0
"""For so long a busy donor is asked again: it may not have noticed yet that an earlier clone is over."""


NO_ROOM = "there was no room for both: the old data went first"


class Busy(Refused):
    """The donor cannot give a copy now, but will be able to."""


@dataclass(frozen=True, slots=True)
class DonorAgent:
    """The agent of the member that gives the copy."""

    name: str
    agent: str
    shown: Credentials

    def state(self, deadline: Deadline) -> MemberState:
        """:raises Unreachable:"""
        return StateReply.model_validate_json(self._get("/v1/state", deadline)).state

    def data_bytes(self, deadline: Deadline) -> int:
        """The size of a copy. :raises Unreachable:"""
        return int(json.loads(self._get("/v1/data", deadline))["bytes"])

    def left_empty(self, deadline: Deadline) -> list[str]:
        """MySQL: tables that a copy would leave empty. :raises Unreachable: :raises Refused: the donor cannot tell"""
        return list(json.loads(self._get("/v1/data", deadline)).get("left_empty", ()))

    def _get(self, path: str, deadline: Deadline) -> bytes:
        try:
            with self._client(min(ANSWER_SECONDS, max(0.1, deadline.left))) as http:
                answer = http.get(path)
                if answer.status_code != 200:
                    self._refuse(answer.status_code, answer.content)
                return answer.content
        except (httpx.HTTPError, ssl.SSLError) as error:
            why = explain(error) or repr(error)
            raise Unreachable(f"the agent of {self.name} ({self.agent}): {why}") from error

    def free(self, account: str, deadline: Deadline | None = None) -> None:
        """MySQL: end on the donor what this account has begun to clone and nobody receives any more. :raises
        Unreachable:"""
        seconds = min(ANSWER_SECONDS, max(0.1, deadline.left)) if deadline else ANSWER_SECONDS
        try:
            with self._client(seconds) as http:
                answer = http.post("/v1/backup/end", json={"account": account})
        except (httpx.HTTPError, ssl.SSLError) as error:
            why = explain(error) or repr(error)
            raise Unreachable(f"the agent of {self.name} ({self.agent}): {why}") from error
        if answer.status_code != 200:
            self._refuse(answer.status_code, answer.content)

    @contextlib.contextmanager
    def backup(self) -> Iterator[Iterator[bytes]]:
        """:raises Busy: the donor gives a copy to another member; :raises Unreachable: no connection, or it was lost"""
        place = urlsplit(self.agent)
        pack = "never" if is_loopback(f"{place.hostname}:0") else "auto"
        # not httpx: its parser in Python would be slower than the disk
        host = place.hostname or ""
        connection = (
            HTTPSConnection(host, place.port, timeout=SILENCE_SECONDS, context=self.shown.context)
            if place.scheme == "https"
            else HTTPConnection(host, place.port, timeout=SILENCE_SECONDS)
        )
        try:
            path = f"{place.path.rstrip('/')}/v1/backup?pack={pack}"
            connection.request("GET", path, headers=self.shown.headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self._refuse(answer.status, answer.read(LARGEST_REFUSAL_BYTES))
            yield iter(lambda: answer.read1(READ_BYTES), b"")
        except (OSError, HTTPException) as error:
            why = explain(error) or repr(error)
            raise Unreachable(f"the stream from {self.name} broke off: {why}") from error
        finally:
            connection.close()

    def _client(self, seconds: float) -> httpx.Client:
        return httpx.Client(
            base_url=self.agent,
            timeout=seconds,
            headers=self.shown.headers,
            verify=self.shown.verify,
            trust_env=False,
        )

    def _refuse(self, status: int, body: bytes) -> NoReturn:
        try:
            said = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            said = body[:200].decode(errors="replace")
        if status == BUSY:
            raise Busy(said)
        raise Refused(f"the agent of {self.name} refuses: {said}")


class Stall:
    """Notices that no bytes arrive although the donor is alive: its copy may wait for a commit that never comes."""

    def __init__(self, donor: str, clock: Clock) -> None:
        self._donor = donor
        self._clock = clock
        self._done = -1
        self._stage = ""
        self._moved_at = clock.monotonic()

    def look(self, done: int, stage: str = "", working_here: bool = False) -> None:
        """:param done: bytes that have arrived
        :param stage: of the copy, as the server calls it
        :param working_here: the current step is done by this host alone
        :raises Refused: nothing has arrived for too long
        """
        now = self._clock.monotonic()
        if (done, stage) != (self._done, self._stage) or working_here:
            self._done, self._stage, self._moved_at = done, stage, now
        if now - self._moved_at > (STALL_SECONDS if done else FIRST_BYTE_SECONDS):
            where = f", in stage {stage}" if stage else ""
            raise Refused(
                f"nothing has come from {self._donor} for {now - self._moved_at:.0f} s{where}: its copy waits for "
                "commits that wait for an acknowledgement, or for a statement that holds a lock there"
            )


class DonorWatch:
    """Notices when a donor's server ended, and when no bytes arrive from it, whether its agent answers or not."""

    def __init__(self, donor: DonorAgent, job: Job) -> None:
        self._donor = donor
        self._job = job
        self._stall = Stall(donor.name, job.clock)
        self._incarnation = donor.state(job.deadline(LOOK_SECONDS)).incarnation
        self._done = 0
        self._came_at = self._looked_at = job.clock.monotonic()

    def look(self, done: int, stage: str = "", working_here: bool = False) -> None:
        """As :meth:`Stall.look`. :raises Refused: no more will arrive"""
        self._stall.look(done, stage, working_here)
        now = self._job.clock.monotonic()
        if done != self._done:
            self._done, self._came_at = done, now
        if now - max(self._looked_at, self._came_at) < LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            state = self._donor.state(self._job.deadline(LOOK_SECONDS))
        except HoldfastError as error:
            if now - self._came_at > SILENCE_SECONDS:
                raise Refused(f"{self._donor.name} sends nothing any more: {error}") from error
            return
        if state.incarnation != self._incarnation:
            raise Refused(f"the server of {self._donor.name} ended: {state.why or state.server}")


def fetch(
    job: Job, donor: DonorAgent, own: ServerConfig, incoming: Path, scratch: Path, lock: int
) -> str:
    """Fill ``incoming`` with a copy that a server can be started on.

    :param scratch: a folder for logs
    :param lock: a file descriptor that the tools hold open while they run :returns: the GTIDs that the copy has, as
        ``@@gtid_binlog_state``
    :raises HoldfastError: ``incoming`` must be thrown away
    """
    tools = find_tools(own.command, own.backup_command)
    log = scratch / "clone.log"
    patience = job.deadline(BUSY_SECONDS)
    while True:
        try:
            with donor.backup() as pieces:
                end = _receive(job, received(pieces), donor.name, tools, own, incoming, log, lock)
            break
        except Busy as error:
            if not patience.left:
                raise Refused(f"{error}: clone from another member, or later") from error
            job.pause(0.5)
    if "error" in end:
        raise Refused(f"{donor.name} could not make the copy: {end['error']}")
    place = binlog_place(incoming)
    if place != (end.get("file"), end.get("offset")):
        raise BrokenStream(f"the copy goes up to {place}, and {donor.name} says {end}")
    job.stage(f"preparing the copy from {donor.name}")
    with log.open("wb") as output:
        argv = tools.preparing(incoming, PREPARE_BYTES)
        run_to_end(argv, output, log, "preparing the copy", job.deadline(PREPARE_SECONDS), (lock,))
    return str(end["state"])


def _receive(
    job: Job,
    frames: Iterator[Frame],
    donor: str,
    tools: BackupTools,
    own: ServerConfig,
    incoming: Path,
    log: Path,
    lock: int,
) -> Mapping[str, Any]:
    """Unpack the received frames; returns the fields of the END."""
    opening = next(frame for frame in frames if frame.kind is not FrameKind.ALIVE)
    if opening.kind is not FrameKind.OPENING:
        raise BrokenStream("the stream does not begin with its opening")
    expected = int(opening.fields()["bytes"])
    if files.make_room(own.datadir, own.binlog_index, expected):
        job.what = f"{job.what} ({NO_ROOM})"
    with log.open("wb") as output:
        unpacker = subprocess.Popen(
            tools.unpacking(incoming),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        )
    assert unpacker.stdin is not None
    widen(unpacker.stdin)
    done = 0
    stall = Stall(donor, job.clock)
    try:
        for frame in frames:
            stall.look(done)
            job.progress(done, max(done, expected))
            if frame.kind is FrameKind.DATA:
                try:
                    unpacker.stdin.write(frame.payload)
                except BrokenPipeError:
                    raise Refused(f"unpacking failed: {_said(unpacker, log)}") from None
                done += len(frame.payload)
            elif frame.kind is FrameKind.END:
                end = frame.fields()
                if "error" not in end and end.get("bytes") != done:
                    raise BrokenStream(f"{done} bytes came, and {end.get('bytes')} were sent")
                break
        with contextlib.suppress(BrokenPipeError):
            unpacker.stdin.close()
        if "error" in end:
            return end
        if unpacker.wait(UNPACK_SECONDS) != 0:
            raise Refused(f"unpacking failed: {last_words(log)}")
        return end
    except subprocess.TimeoutExpired as error:
        raise Refused("unpacking does not end") from error
    finally:
        unpacker.kill()
        with contextlib.suppress(BrokenPipeError):
            unpacker.stdin.close()
        unpacker.wait()


def _said(unpacker: subprocess.Popen[bytes], log: Path) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        unpacker.wait(5)
    return last_words(log)

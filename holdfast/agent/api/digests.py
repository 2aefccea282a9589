"""POST /v1/digest: digests of tables of a primary, for a member that compares its own with them.

The answer is a stream of lines: ``{"place": …}`` as soon as the moment is chosen, ``{"digests": {table: digest}}`` at
the end, or ``{"error": …}``; an empty line now and then in between. A client that closes the connection cancels the
work.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from holdfast.clock import Clock
from holdfast.errors import BadInput, HoldfastError
from holdfast.server.base import Deadline
from holdfast.server.data.digest import Digester, HistoryPlace, parse_table, table_name

DIGEST_SECONDS = 6 * 3600.0
ALIVE_SECONDS = 0.25
BUSY_SECONDS = 0.2
"""How long a request waits for earlier work to end whose client has closed its connection."""
MOST_TABLES = 10_000


class DigestRequest(BaseModel):
    """:ivar tables: as in ``MemberState.suspects``"""

    tables: list[str]


Tell = Callable[[dict[str, Any]], None]


class Lines:
    """Answers in lines what work in a thread produces; one piece of work at a time.

    An error of the work becomes the last line. A client that closes the connection cancels the work.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._busy = threading.Lock()

    def stream(
        self, work: Callable[[threading.Event, Tell], None], last: str = ""
    ) -> StreamingResponse:
        """:param work: gets the event that cancels it, and the function that sends a line
        :param last: the key of the last line; "": the first line is the last
        """
        return StreamingResponse(self._answer(work, last), media_type="application/x-ndjson")

    async def _answer(
        self, work: Callable[[threading.Event, Tell], None], last: str
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        called_off = threading.Event()

        def tell(line: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        done = loop.run_in_executor(None, self._carry_out, work, called_off, tell)
        try:
            while True:
                try:
                    async with self._clock.timeout(ALIVE_SECONDS):
                        line = await lines.get()
                except TimeoutError:
                    yield b"\n"
                    continue
                yield json.dumps(line).encode() + b"\n"
                if not last or last in line or "error" in line:
                    break
            await done
        finally:
            called_off.set()

    def _carry_out(
        self,
        work: Callable[[threading.Event, Tell], None],
        called_off: threading.Event,
        tell: Tell,
    ) -> None:
        if not self._busy.acquire(timeout=BUSY_SECONDS):
            tell({"error": "another member is being compared"})
            return
        try:
            work(called_off, tell)
        except HoldfastError as error:
            tell({"error": str(error)})
        except Exception as error:  # the client waits for an answer
            tell({"error": f"it failed here: {error!r}"})
            raise
        finally:
            self._busy.release()


def add_digests(app: FastAPI, digester: Digester, clock: Clock) -> None:
    lines = Lines(clock)

    @app.post("/v1/digest")
    async def digest(request: DigestRequest) -> StreamingResponse:
        """Returns digests of tables at one moment; see ``holdfast/agent/api/digests.py``."""
        if len(request.tables) > MOST_TABLES:
            raise BadInput("tables", f"{len(request.tables)}: at most {MOST_TABLES}")
        try:
            tables = [parse_table(name) for name in request.tables]
        except ValueError as error:
            raise BadInput("tables", str(error)) from None

        def work(called_off: threading.Event, tell: Tell) -> None:
            def begun(place: HistoryPlace) -> None:
                tell({"place": asdict(place)})

            deadline = Deadline(DIGEST_SECONDS, called_off.is_set, clock)
            found = digester.take(tables, deadline, begun)
            tell({"digests": {table_name(table): digest for table, digest in found.items()}})

        return lines.stream(work, last="digests")

"""POST /v1/digest: digests of tables of a primary, for a member that compares its own with them.

The answer is a stream of lines: ``{"place": …}`` as soon as the moment is chosen, ``{"digests": {table: digest}}`` at
the end, or ``{"error": …}``; an empty line now and then in between. Whoever hangs up calls the work off.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from holdfast.errors import BadInput, HoldfastError
from holdfast.server.base import Deadline
from holdfast.server.digest import Digester, Place, Table, parse_table, table_name

DIGEST_SECONDS = 6 * 3600.0
ALIVE_SECONDS = 0.25
MOST_TABLES = 10_000


class DigestRequest(BaseModel):
    """:ivar tables: as in ``MemberState.suspects``"""

    tables: list[str]


class Digests:
    """One at a time: each reads tables from end to end."""

    def __init__(self, digester: Digester) -> None:
        self._digester = digester
        self._busy = threading.Lock()

    async def answer(self, tables: list[Table]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        called_off = threading.Event()

        def tell(line: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        work = loop.run_in_executor(None, self._take, tables, called_off, tell)
        try:
            while True:
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        line = await lines.get()
                except TimeoutError:
                    yield b"\n"
                    continue
                yield json.dumps(line).encode() + b"\n"
                if "place" not in line:
                    break
            await work
        finally:
            called_off.set()

    def _take(self, tables: list[Table], called_off: threading.Event, tell: Any) -> None:
        deadline = Deadline(DIGEST_SECONDS, called_off.is_set)

        def begun(place: Place) -> None:
            tell({"place": asdict(place)})

        if not self._busy.acquire(blocking=False):
            tell({"error": "another member is being compared"})
            return
        try:
            found = self._digester.take(tables, deadline, begun)
            tell({"digests": {table_name(table): digest for table, digest in found.items()}})
        except HoldfastError as error:
            tell({"error": str(error)})
        except Exception as error:  # whoever asked waits for an answer
            tell({"error": f"it failed here: {error!r}"})
            raise
        finally:
            self._busy.release()


def add_digests(app: FastAPI, digests: Digests) -> None:
    @app.post("/v1/digest")
    async def digest(request: DigestRequest) -> StreamingResponse:
        """Digests of tables at one moment; see ``holdfast/agent/digesting.py``."""
        if len(request.tables) > MOST_TABLES:
            raise BadInput("tables", f"{len(request.tables)}: at most {MOST_TABLES}")
        try:
            tables = [parse_table(name) for name in request.tables]
        except ValueError as error:
            raise BadInput("tables", str(error)) from None
        return StreamingResponse(digests.answer(tables), media_type="application/x-ndjson")

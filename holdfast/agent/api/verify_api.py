"""What a primary's agent answers to a member that verifies its tables; see ``agent/rewind/verify.py``.

POST /v1/verify/tables                                    -> {"tables": [{"table", "rows", "skipped"}, …]}
POST /v1/verify/load                                      -> {"running": threads that are at work}
POST /v1/verify/piece  {"table", "after", "last", "rows"} -> {"place", "upto", "last"}, then {"digest", "key"}
GET  /v1/verification                                     -> what this member's own verification has found

The first three answer in lines, as ``digests.py`` describes. Closing the connection cancels the work.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, StreamingResponse

from holdfast.agent.api.digests import Lines, Tell
from holdfast.agent.rewind.verify import CHUNK_SECONDS, MOST_ROWS, Verifying
from holdfast.clock import Clock
from holdfast.errors import BadInput
from holdfast.server.base import Deadline
from holdfast.server.data.chunks import ChunkDigester, Key, check_key
from holdfast.server.data.digest import HistoryPlace, parse_table, table_name


class NothingAsked(BaseModel):
    """No arguments."""


class PieceRequest(BaseModel):
    """:ivar table: as ``digest.table_name`` writes it; :ivar rows: at most
    :ivar after, last: keys, as in ``ChunkDigester.take_chunk``
    """

    table: str
    after: list[str] = Field(default_factory=list, max_length=64)
    last: list[str] = Field(default_factory=list, max_length=64)
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]


def add_verify(app: FastAPI, digester: ChunkDigester, verifying: Verifying, clock: Clock) -> None:
    lines = Lines(clock)

    def within(called_off: threading.Event) -> Deadline:
        return Deadline(CHUNK_SECONDS, called_off.is_set, clock)

    @app.post("/v1/verify/tables")
    async def tables(_: NothingAsked) -> StreamingResponse:
        """Returns the tables that can be compared, and why others cannot."""

        def work(called_off: threading.Event, tell: Tell) -> None:
            found = digester.tables(within(called_off))
            listed = [
                {"table": table_name(each.table), "rows": each.rows, "skipped": each.skipped}
                for each in found
            ]
            tell({"tables": listed})

        return lines.stream(work)

    @app.post("/v1/verify/load")
    async def load(_: NothingAsked) -> StreamingResponse:
        """Returns how busy the server is."""

        def work(called_off: threading.Event, tell: Tell) -> None:
            tell({"running": digester.running(within(called_off))})

        return lines.stream(work)

    @app.post("/v1/verify/piece")
    async def piece(asked: PieceRequest) -> StreamingResponse:
        """Returns the digest of a table's next rows, at one moment."""
        try:
            table = parse_table(asked.table)
        except ValueError as error:
            raise BadInput("table", str(error)) from None
        after, last = check_key(asked.after), check_key(asked.last)

        def work(called_off: threading.Event, tell: Tell) -> None:
            deadline = within(called_off)

            def begun(place: HistoryPlace, upto: Key, last: Key) -> None:
                tell({"place": asdict(place), "upto": upto, "last": last})

            digest, key = digester.take_chunk(table, after, asked.rows, deadline, begun, last)
            tell({"digest": digest, "key": key})

        return lines.stream(work, last="digest")

    @app.get("/v1/verification")
    async def verification() -> JSONResponse:
        """Returns the result of this member's last verification, for each table."""
        found: dict[str, Any] = asdict(verifying.findings)
        for internal in ("table", "after", "last", "finished"):
            del found[internal]
        found["different"] = verifying.findings.told().different
        return JSONResponse(found)

"""What would delay the primary if it were to stop taking writes now."""

from __future__ import annotations

import asyncio
import math

from fastapi import FastAPI, Response

from holdfast.clock import Clock
from holdfast.errors import BadInput
from holdfast.http.serving import json_response
from holdfast.http.wire import BlockersReply
from holdfast.server.base import Deadline, Server

LOOK_SECONDS = 3.0


def add_blockers(app: FastAPI, server: Server, clock: Clock) -> None:
    @app.get("/v1/blockers", response_model=BlockersReply)
    async def blockers(seconds: float = 1.0) -> Response:
        """Returns clients' transactions and statements that are older than ``seconds``, and table locks."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise BadInput("seconds", "must be a number of seconds")
        deadline = Deadline(LOOK_SECONDS, clock=clock)
        found = await asyncio.to_thread(server.blockers, seconds, deadline)
        reply = BlockersReply(blockers=tuple(found))
        return json_response(reply)

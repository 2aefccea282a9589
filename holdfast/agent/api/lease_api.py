"""The part of the agent's API that concerns a primary's lease; ``wire.py`` defines the format."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response

from holdfast.agent.api.app import LongPoll, bounded_wait
from holdfast.agent.disk.obeyed import Obeyed
from holdfast.agent.lease.keeper import Keeper
from holdfast.agent.lease.vouch import Vouch
from holdfast.errors import Refused
from holdfast.http.serving import body_of, json_response, parsed
from holdfast.http.wire import RecordReply, StateReply, VouchReply, VouchRequest, WatchRequest


def add_lease(
    app: FastAPI,
    poll: LongPoll,
    keeper: Keeper,
    vouch: Vouch,
    obeyed: Obeyed,
    heartbeat: Callable[[float], None],
) -> None:
    """:param heartbeat: called with the interval, in seconds, at which the leading manager wants an answer"""

    @app.post("/v1/watch", response_model=StateReply, openapi_extra=body_of(WatchRequest))
    async def watch(request: Request) -> Response:
        """As ``GET /v1/state``; a grant takes effect before the wait begins."""
        asked = await parsed(request, WatchRequest)
        wait = bounded_wait(asked.wait)
        if stranger := obeyed.stranger(asked.told):
            raise Refused(stranger)
        obeyed.heard(asked.told)
        if asked.grant is not None:
            keeper.granted(asked.grant)
        if wait:
            heartbeat(wait)
        return json_response(await poll.changed(asked.since, wait))

    @app.get("/v1/record", response_model=RecordReply)
    async def record() -> Response:
        """Returns what this agent remembers of the record that it obeyed last."""
        return json_response(obeyed.told())

    @app.post("/v1/vouch", response_model=VouchReply, openapi_extra=body_of(VouchRequest))
    async def confirm(request: Request) -> Response:
        """Confirms to the primary that asks, or refuses to confirm, that this member promised no other term."""
        return json_response(vouch.asked(await parsed(request, VouchRequest)))

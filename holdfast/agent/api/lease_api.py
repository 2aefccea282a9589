"""What goes over the agent's API about a primary's lease; ``wire.py`` says of what form it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from holdfast.agent.api.app import LongPoll, bounded_wait
from holdfast.agent.disk.obeyed import Obeyed
from holdfast.agent.lease.keeper import Keeper
from holdfast.agent.lease.vouch import Vouch
from holdfast.errors import BadInput, Refused
from holdfast.http.serving import first_complaint
from holdfast.http.wire import RecordReply, StateReply, VouchReply, VouchRequest, WatchRequest

Model = TypeVar("Model", bound=BaseModel)


def add_lease(
    app: FastAPI,
    poll: LongPoll,
    keeper: Keeper,
    vouching: Vouch,
    obeyed: Obeyed,
    heartbeat: Callable[[float], None],
) -> None:
    """:param heartbeat: told how often the leading manager wants to hear something, in seconds"""

    @app.post("/v1/watch", response_model=StateReply, openapi_extra=_body_of(WatchRequest))
    async def watch(request: Request) -> Response:
        """As ``GET /v1/state``; a grant takes effect before the wait begins."""
        asked = await _parsed(request, WatchRequest)
        wait = bounded_wait(asked.wait)
        if stranger := obeyed.stranger(asked.told):
            raise Refused(stranger)
        obeyed.heard(asked.told)
        if asked.grant is not None:
            keeper.granted(asked.grant)
        if wait:
            heartbeat(wait)
        return _json(await poll.changed(asked.since, wait))

    @app.get("/v1/record", response_model=RecordReply)
    async def record() -> Response:
        """What this agent remembers of the record that it obeyed last."""
        return _json(obeyed.told())

    @app.post("/v1/vouch", response_model=VouchReply, openapi_extra=_body_of(VouchRequest))
    async def vouch(request: Request) -> Response:
        """Whether this member's word is given to the primary that asks."""
        return _json(vouching.asked(await _parsed(request, VouchRequest)))


def _body_of(model: type[BaseModel]) -> dict[str, object]:
    schema = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": schema, "required": True}}


async def _parsed(request: Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise BadInput("request", first_complaint(error.errors(include_url=False))) from None


def _json(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json().encode(), media_type="application/json")

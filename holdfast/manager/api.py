"""The manager's HTTP API, for the command line and for whoever monitors.

GET /v1/health
GET /v1/clusters                                      -> {"clusters": [name, …]}
GET /v1/clusters/{name}/status                        -> core.status.Status
GET /v1/clusters/{name}/events?since=ID&wait=SECONDS  -> {"events": [manager.events.Event, …]}
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response
from pydantic import TypeAdapter

from holdfast.core.status import Status
from holdfast.manager.events import Event
from holdfast.manager.lead import Leader
from holdfast.serving import BearerToken, one_line_errors

LONGEST_WAIT_SECONDS = 60.0

_STATUS = TypeAdapter(Status)
_EVENTS = TypeAdapter(dict[str, list[Event]])


def make_app(leaders: dict[str, Leader], token: str | None, lifespan: Any = None) -> FastAPI:
    app = FastAPI(
        title="Holdfast manager",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )
    if token is not None:
        app.add_middleware(BearerToken, token=token)
    one_line_errors(app)

    @app.get("/v1/health")
    async def health() -> dict[str, str]:
        """Whether the manager itself runs; says nothing of the clusters."""
        return {"status": "ok"}

    @app.get("/v1/clusters")
    async def clusters() -> dict[str, list[str]]:
        return {"clusters": list(leaders)}

    @app.get("/v1/clusters/{name}/status", response_model=Status)
    async def status(name: str) -> Response:
        return _json(_STATUS.dump_json(_leader(name).status()))

    @app.get("/v1/clusters/{name}/events")
    async def events(
        name: str,
        since: int = 0,
        wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0.0,
    ) -> Response:
        """The events after ``since``; waits up to ``wait`` seconds for the first."""
        found = await _leader(name).events.since(since, wait)
        return _json(_EVENTS.dump_json({"events": found}))

    def _leader(name: str) -> Leader:
        if name not in leaders:
            raise HTTPException(404, f"no cluster {name!r}; this manager has {', '.join(leaders)}")
        return leaders[name]

    return app


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")

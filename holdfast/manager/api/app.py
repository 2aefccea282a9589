"""The manager's HTTP API, for the command line and for monitoring.

GET    /v1/health
GET    /v1/clusters                                      -> {"clusters": [name, …]}
GET    /v1/clusters/{name}/leader                        -> {"leads": whether this manager does, "name", "url"}
GET    /v1/clusters/{name}/status                        -> core.answers.status.Status
GET    /v1/clusters/{name}/events?since=ID&wait=SECONDS  -> {"events": [manager.leader.events.Event, …]}
GET    /v1/clusters/{name}/settings                      -> {"version": N, "settings": [configure.Item, …]}
POST   /v1/clusters/{name}/settings      SettingsChange  -> {"version": N, "notes": [sentence, …]}
GET    /v1/clusters/{name}/members                       -> {"members": [core.cluster.Member, …]}
POST   /v1/clusters/{name}/members       people.Newcomer -> core.cluster.Member
POST   /v1/clusters/{name}/members/{member}/remove       RemoveRequest  -> {"removed": bool, "waiting": why,
                                                                            "notes": […]}
POST   /v1/clusters/{name}/members/{member}/clone        CloneRequest   -> {"done": sentence}
POST   /v1/clusters/{name}/members/{member}/restart      RestartRequest -> {"done": sentence}
POST   /v1/clusters/{name}/failover      FailoverRequest -> {"done": sentence}
POST   /v1/clusters/{name}/pause         PauseRequest    -> orders.Paused
POST   /v1/clusters/{name}/resume        {}              -> {"done": sentence}

The history's are in ``history.py``, those of check and adopt in ``manager/people/check.py``.

Errors are ``{"error": class, "message": one line}``: 400 bad input, 404 no such cluster or member, 409 refused, 503
cannot be done here (this manager does not lead, or an agent does not answer), 504 the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import Field, TypeAdapter

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.schema import Url
from holdfast.config.values import Name, StrictModel
from holdfast.core.answers.access import MANAGER_API, CertificateHolder
from holdfast.core.answers.status import Status
from holdfast.core.change.orders import CloneMember, RestartMember
from holdfast.core.change.takeover import FailoverOrder
from holdfast.errors import BadInput
from holdfast.http.guarding import Token, guard
from holdfast.http.serving import (
    LONGEST_WAIT_SECONDS,
    check_member,
    json_response,
    make_api,
    of_cluster,
)
from holdfast.manager.leader.events import Event
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.members import Newcomer, People
from holdfast.manager.people.orders import Orders

_STATUS = TypeAdapter(Status)
_EVENTS = TypeAdapter(dict[str, list[Event]])


class NoArguments(StrictModel):
    """``{}``: a request that changes something is JSON, which no web page can send unasked."""


class SettingsChange(StrictModel):
    """:ivar set: values by dotted key, as operators write them
    :ivar expected: the version that it is based on; None for any version
    """

    set: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)
    expected: int | None = None


class NewcomerRequest(StrictModel):
    name: Name
    agent: Url
    host: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class RemoveRequest(StrictModel):
    """:ivar destroyed: its host will never answer again"""

    destroyed: bool = False


class CloneRequest(StrictModel):
    donor: str = ""
    discard: bool = False


class FailoverRequest(StrictModel):
    """:ivar accept_loss: the cluster's name, if the operator accepts the risk; else \"\""""

    to: str = ""
    accept_loss: str = ""
    skip_stop_hook: bool = False


class PauseRequest(StrictModel):
    """:ivar seconds: after which the pause ends by itself; None: it does not"""

    reason: Annotated[str, Field(min_length=1, max_length=300)]
    seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None


class RestartRequest(StrictModel):
    """:ivar waiting: the restart may let writes wait, if they must"""

    waiting: bool = False


def make_app(
    leaders: dict[str, Leader],
    token: Token | None,
    lifespan: Any = None,
    hosts: Collection[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> FastAPI:
    """:param hosts: as in ``guard``"""
    app = make_api("Holdfast manager", lifespan)
    guard(app, token, MANAGER_API, hosts=hosts, clock=clock)

    @app.get("/v1/health")
    async def health() -> dict[str, str]:
        """Answers that the manager itself runs; says nothing about the clusters."""
        return {"status": "ok"}

    @app.get("/v1/clusters")
    async def clusters(request: Request) -> dict[str, list[str]]:
        """Returns the clusters that concern the client."""
        holder: CertificateHolder | None = getattr(request.state, "holder", None)
        return {"clusters": [name for name in leaders if holder is None or holder.is_of(name)]}

    @app.get("/v1/clusters/{name}/leader")
    async def leader(name: str) -> dict[str, Any]:
        """Returns the leading manager as far as this one knows: name and URL are "" where it does not."""
        place = of_cluster(leaders, name).place
        known = place.leader
        return {
            "leads": place.leads,
            "name": known.name if known else "",
            "url": known.url if known else "",
        }

    @app.get("/v1/clusters/{name}/status", response_model=Status)
    async def status(name: str) -> Response:
        return json_response(_STATUS.dump_json(of_cluster(leaders, name).status()))

    @app.get("/v1/clusters/{name}/events")
    async def events(
        name: str,
        since: int = 0,
        wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0.0,
    ) -> Response:
        """Returns the events after ``since``; waits up to ``wait`` seconds for the first."""
        found = await of_cluster(leaders, name).events.since(since, wait)
        return json_response(_EVENTS.dump_json({"events": found}))

    @app.get("/v1/clusters/{name}/settings")
    async def settings(name: str) -> dict[str, Any]:
        return People(of_cluster(leaders, name)).settings()

    @app.post("/v1/clusters/{name}/settings")
    async def change_settings(name: str, change: SettingsChange) -> dict[str, Any]:
        """Sets and unsets keys, all or nothing."""
        return await People(of_cluster(leaders, name)).set(
            change.set, change.unset, change.expected
        )

    @app.get("/v1/clusters/{name}/members")
    async def members(name: str) -> dict[str, Any]:
        return People(of_cluster(leaders, name)).members()

    @app.post("/v1/clusters/{name}/members")
    async def add_member(name: str, newcomer: NewcomerRequest) -> dict[str, Any]:
        """Adds a member, if its agent answers and nothing stands against it."""
        return await People(of_cluster(leaders, name)).add(Newcomer(**newcomer.model_dump()))

    @app.post("/v1/clusters/{name}/members/{member}/remove")
    async def remove_member(name: str, member: str, asked: RemoveRequest) -> dict[str, Any]:
        """Removes a member, or begins to; repeat the request until ``removed``."""
        return await People(_of(name, member)).remove(member, asked.destroyed)

    @app.post("/v1/clusters/{name}/members/{member}/clone")
    async def clone_member(name: str, member: str, asked: CloneRequest) -> dict[str, str]:
        """Replaces a member's data; answers when that has begun."""
        order = CloneMember(member, asked.donor, asked.discard)
        return {"done": await Orders(_of(name, member)).carry_out(order)}

    @app.post("/v1/clusters/{name}/members/{member}/restart")
    async def restart_member(name: str, member: str, asked: RestartRequest) -> dict[str, str]:
        """Restarts a member's server; answers when it is up, for the primary when the restart has begun."""
        order = RestartMember(member, asked.waiting)
        return {"done": await Orders(_of(name, member)).carry_out(order)}

    @app.post("/v1/clusters/{name}/failover")
    async def fail_over(name: str, asked: FailoverRequest) -> dict[str, str]:
        """Has another member take over from a lost primary; answers when that has begun."""
        if asked.accept_loss and asked.accept_loss != name:
            raise BadInput("accept_loss", f"must be the cluster's name, {name}, to be sure")
        if asked.to:
            _of(name, asked.to)
        order = FailoverOrder(asked.to, bool(asked.accept_loss), asked.skip_stop_hook)
        return {"done": await Orders(of_cluster(leaders, name)).fail_over(order)}

    @app.post("/v1/clusters/{name}/pause")
    async def pause(name: str, asked: PauseRequest) -> dict[str, Any]:
        """Pauses: the manager begins nothing by itself. Replaces a pause that holds."""
        return asdict(await Orders(of_cluster(leaders, name)).pause(asked.reason, asked.seconds))

    @app.post("/v1/clusters/{name}/resume")
    async def resume(name: str, _: NoArguments) -> dict[str, str]:
        return {"done": await Orders(of_cluster(leaders, name)).resume()}

    def _of(name: str, member: str) -> Leader:
        leader = of_cluster(leaders, name)
        check_member(member, [each.name for each in leader.cluster.members])
        return leader

    return app

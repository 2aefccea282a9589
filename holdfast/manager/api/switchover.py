"""Switchovers in the manager's HTTP API.

POST    /v1/clusters/{name}/switchover  SwitchoverRequest -> {"done": sentence, "to": member, "event": its number};
                                        with dry_run {"to": member or "", "against": [sentence, …]};
                                        with at or detach {"done": sentence}
DELETE  /v1/clusters/{name}/switchover?waiting=BOOL  -> {"done": sentence}: cancels the one that waits, else undoes
                                        the one that is under way, else deletes the one that is planned

An order that waits until it can begin is cancelled when its client disconnects, unless it was detached.

Errors are as in ``app.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import Field

from holdfast.config.values import StrictModel
from holdfast.core.change.preflight import SwitchoverOrder
from holdfast.http.serving import of_cluster
from holdfast.manager.people.scheduled import Planner
from holdfast.manager.people.switchover import Switching


class SwitchoverRequest(StrictModel):
    """As ``core.change.preflight.SwitchoverOrder``.

    :ivar at: begin then, in seconds since 1970; None: now
    :ivar detach: the order stays when the client disconnects
    """

    to: str = ""
    seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    old: Annotated[float, Field(gt=0, le=3600)] = 2.0
    wait: bool = False
    kill_after: Annotated[float, Field(ge=0, le=3600)] | None = None
    dry_run: bool = False
    at: Annotated[float, Field(gt=0)] | None = None
    detach: bool = False


def add_switchover(app: FastAPI, planners: Mapping[str, Planner]) -> None:
    @app.post("/v1/clusters/{name}/switchover")
    async def switch_over(name: str, asked: SwitchoverRequest, request: Request) -> dict[str, Any]:
        """Makes another member primary in place of one that is well; answers when that has begun, or is planned."""
        planner = of_cluster(planners, name)
        order = SwitchoverOrder(**asked.model_dump(exclude={"dry_run", "at", "detach"}))
        if asked.dry_run:
            outlook = await Switching(planner.leader).look(order)
            return {"to": outlook.to, "against": [each.text for each in outlook.against]}
        if asked.at is not None:
            return {"done": await planner.plan(order, asked.at)}
        if asked.detach:
            return {"done": await planner.detach(order)}
        begun = await Switching(planner.leader).begin(order, request.is_disconnected)
        done = f"the switchover to {begun.to} has begun"
        return {"done": done, "to": begun.to, "event": begun.event}

    @app.delete("/v1/clusters/{name}/switchover")
    async def cancel(name: str, waiting: bool = False) -> dict[str, str]:
        """Cancels an order while that is possible.

        :param waiting: only an order that waits
        """
        return {"done": await of_cluster(planners, name).cancel(waiting)}

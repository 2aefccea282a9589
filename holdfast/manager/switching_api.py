"""Switchovers in the manager's HTTP API.

POST    /v1/clusters/{name}/switchover  SwitchoverRequest -> {"done": sentence, "to": member, "event": its number};
                                        with dry_run {"to": member or "", "against": [sentence, …]};
                                        with at {"done": sentence}
DELETE  /v1/clusters/{name}/switchover  -> {"done": sentence}: what was planned is not begun

Errors are as in ``api.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import Field

from holdfast.config.values import StrictModel
from holdfast.core.preflight import SwitchOver
from holdfast.manager.planning import Planner
from holdfast.manager.switching import Switching


class SwitchoverRequest(StrictModel):
    """As ``core.preflight.SwitchOver``.

    :ivar at: begin then, in seconds since 1970; None: now
    """

    to: str = ""
    seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    old: Annotated[float, Field(gt=0, le=3600)] = 2.0
    wait: bool = False
    kill_after: Annotated[float, Field(ge=0, le=3600)] | None = None
    dry_run: bool = False
    at: Annotated[float, Field(gt=0)] | None = None


def add_switchover(app: FastAPI, planners: Mapping[str, Planner]) -> None:
    @app.post("/v1/clusters/{name}/switchover")
    async def switch_over(name: str, asked: SwitchoverRequest) -> dict[str, Any]:
        """Have another one be primary in place of one that is well; answers when that has begun, or is planned."""
        planner = _planner(name)
        order = SwitchOver(**asked.model_dump(exclude={"dry_run", "at"}))
        if asked.dry_run:
            outlook = await Switching(planner.leader).look(order)
            return {"to": outlook.to, "against": [each.text for each in outlook.against]}
        if asked.at is not None:
            return {"done": await planner.plan(order, asked.at)}
        begun = await Switching(planner.leader).begin(order)
        done = f"the switchover to {begun.to} has begun"
        return {"done": done, "to": begun.to, "event": begun.event}

    @app.delete("/v1/clusters/{name}/switchover")
    async def cancel(name: str) -> dict[str, str]:
        """Do not begin what was planned."""
        return {"done": await _planner(name).cancel()}

    def _planner(name: str) -> Planner:
        if name not in planners:
            raise HTTPException(404, f"no cluster {name!r}; this manager has {', '.join(planners)}")
        return planners[name]

"""The manager's HTTP API for repairs that an operator orders; ``app.py`` describes the errors.

POST   /v1/clusters/{name}/store/repair              RepairRequest -> repair.RepairReply
POST   /v1/clusters/{name}/members/{member}/confirm  {}            -> {"done": sentence}
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from pydantic import TypeAdapter

from holdfast.config.values import StrictModel
from holdfast.errors import BadInput
from holdfast.http.serving import check_member, json_response, of_cluster
from holdfast.manager.api.app import NoArguments
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.repair import RepairReply, StoreRepair, confirm

_REPLY = TypeAdapter(RepairReply)


class RepairRequest(StrictModel):
    """:ivar accept_loss: the cluster's name, if the operator accepts the risk; else ""
    :ivar source: the member whose memory is used; "": the one with the newest record
    """

    dry_run: bool = False
    accept_loss: str = ""
    source: str = ""


def add_repair(app: FastAPI, leaders: dict[str, Leader]) -> None:
    @app.post("/v1/clusters/{name}/store/repair", response_model=RepairReply)
    async def repair(name: str, asked: RepairRequest) -> Response:
        """Rebuilds the record from what the agents remember."""
        if asked.accept_loss and asked.accept_loss != name:
            raise BadInput("accept_loss", f"must be the cluster's name, {name}, to be sure")
        risk = bool(asked.accept_loss)
        reply = await StoreRepair(of_cluster(leaders, name)).run(asked.dry_run, risk, asked.source)
        return json_response(_REPLY.dump_json(reply))

    @app.post("/v1/clusters/{name}/members/{member}/confirm")
    async def confirm_member(name: str, member: str, _: NoArguments) -> dict[str, Any]:
        """Accepts the agent that now answers for that member as its agent."""
        leader = of_cluster(leaders, name)
        check_member(member, [each.name for each in leader.cluster.members])
        return {"done": await confirm(leader, member)}

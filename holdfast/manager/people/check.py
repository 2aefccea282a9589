"""Asks all agents for facts of their hosts, and has them judged.

GET  /v1/clusters/{name}/check                  -> core.check.findings.CheckReport
POST /v1/clusters/{name}/adopt   AdoptRequest   -> adopt.AdoptReply
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import FastAPI, Response
from pydantic import Field, TypeAdapter

from holdfast.config.schema import Url
from holdfast.config.values import Name, StrictModel
from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import CheckReport
from holdfast.core.check.reaching import barred_pairs, check_logins
from holdfast.core.check.together import check
from holdfast.errors import HoldfastError
from holdfast.http.serving import json_response, of_cluster
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.adopt import Adoption, AdoptReply
from holdfast.manager.people.reaching import Tried, tried

_REPORT = TypeAdapter(CheckReport)
_ADOPTED = TypeAdapter(AdoptReply)


class AdoptRequest(StrictModel):
    """:ivar primary: the member that was shown as primary; "" for any
    :ivar members: the members that are meant, with the URLs of their agents; none for those that are configured
    """

    dry_run: bool = True
    primary: str = ""
    members: Annotated[dict[Name, Url], Field(max_length=7)] = Field(default_factory=dict)


async def gather(
    agents: Mapping[str, AgentClient], counting: bool = True
) -> tuple[dict[str, Facts], dict[str, str]]:
    """The facts of each member, requested from all at once; and why some did not answer.

    :param counting: its tables, too, which may take seconds
    """

    async def ask(agent: AgentClient) -> Facts | HoldfastError:
        try:
            return await agent.facts(counting)
        except HoldfastError as error:
            return error

    answers = await asyncio.gather(*(ask(agent) for agent in agents.values()))
    found: dict[str, Facts] = {}
    silent: dict[str, str] = {}
    for name, answer in zip(agents, answers, strict=True):
        if isinstance(answer, Facts):
            found[name] = answer
        else:
            silent[name] = str(answer)
    return found, silent


async def examine(leader: Leader) -> CheckReport:
    """A check of one cluster. Where there is no record yet, accounts may still be missing."""
    record, cluster = leader.record, leader.cluster
    if record is None:
        (found, silent), logins = await gather(leader.agents), Tried()
    else:
        names = [member.name for member in cluster.members]
        (found, silent), logins = await asyncio.gather(
            gather(leader.agents), tried(leader, names, admins=True)
        )
    adopting = record is None and any(facts.writable for facts in found.values())
    barred = barred_pairs(cluster, leader.view())
    together = check_logins(logins.reached, barred, logins.admins)
    return check(cluster.name, tuple(found.values()), silent, adopting, tuple(together))


def add_inspection(app: FastAPI, leaders: Mapping[str, Leader]) -> None:
    adoptions: dict[str, Adoption] = {}

    @app.get("/v1/clusters/{name}/check", response_model=CheckReport)
    async def check_cluster(name: str) -> Response:
        """Returns what is right and wrong with each member; asks all agents anew."""
        return json_response(_REPORT.dump_json(await examine(of_cluster(leaders, name))))

    @app.post("/v1/clusters/{name}/adopt", response_model=AdoptReply)
    async def adopt(name: str, asked: AdoptRequest) -> Response:
        """Takes over a cluster that runs; a dry run says what would be done, or all that stands against it."""
        leader = of_cluster(leaders, name)
        adoption = adoptions.setdefault(name, Adoption(leader, gather))
        reply = await adoption.run(asked.dry_run, asked.primary, asked.members)
        return json_response(_ADOPTED.dump_json(reply))

"""Asks the agent of another member for its replication account."""

from __future__ import annotations

import ssl

import httpx

from holdfast.errors import Refused, Unreachable
from holdfast.http.wire import AccountReply
from holdfast.server.base import Deadline
from holdfast.tls import Credentials, explain

ASK_SECONDS = 1.0


def fetch_account(member: str, agent: str, shown: Credentials, deadline: Deadline) -> AccountReply:
    """The replication account of another member, with what a server stores instead of its password.

    :raises Unreachable: its agent does not answer
    :raises Refused: its agent refuses
    """
    seconds = min(ASK_SECONDS, max(0.1, deadline.left))
    to = shown.to(agent)
    try:
        with httpx.Client(
            timeout=seconds, headers=to.headers, verify=to.verify, trust_env=False
        ) as http:
            answer = http.get(f"{agent.rstrip('/')}/v1/account")
    except (httpx.HTTPError, ssl.SSLError) as error:
        raise Unreachable(f"the agent of {member} ({agent}): {explain(error) or error!r}") from None
    if answer.status_code != 200:
        raise Refused(f"the agent of {member} does not tell its account: {answer.status_code}")
    return AccountReply.model_validate_json(answer.content)

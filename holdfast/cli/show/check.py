"""``holdfast check``: what is right and wrong with each member, and how to fix it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.kit.connection import (
    TOKEN_VARIABLE,
    AsJson,
    ClusterName,
    Manager,
    TokenFile,
    connect,
    own_certificate,
)
from holdfast.errors import BadInput

WRONG, UNANSWERED = 1, 3
STYLES = {"wrong": "bold red", "warning": "yellow", "note": "dim"}


def check(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="URL of an agent to ask, without a manager; may be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is right and what is wrong with each member, and how to fix it.

    Exits with 0 if nothing is wrong, with 1 if something is, with 3 if a member did not answer.
    """
    if agent:
        if manager or cluster:
            raise BadInput(
                "--agent", "asks agents themselves: not together with --manager or --cluster"
            )
        report = _without_manager(agent, token_file)
    else:
        client, name = connect(manager, token_file, cluster)
        with contextlib.closing(client):
            report = client.check(name)
    print_report(report) if not as_json else print(json.dumps(report))
    if code := exit_code(report, strict):
        raise typer.Exit(code)


def exit_code(report: dict[str, Any], strict: bool) -> int:
    """A known fault counts more than what is unknown."""
    failing = {"wrong", "warning"} if strict else {"wrong"}
    levels = {found["level"] for member in report["members"] for found in member["findings"]}
    if levels & failing:
        return WRONG
    return UNANSWERED if any(member["unanswered"] for member in report["members"]) else 0


def print_report(report: dict[str, Any]) -> None:
    """What is right is named in one line for each member; everything else with its remedy."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for member in report["members"]:
        findings = member["findings"]
        rest = [found for found in findings if found["level"] != "ok"]
        # something that is right in one respect and wrong in another is not right
        wrong = {found["key"] for found in rest}
        right = dict.fromkeys(f["key"] for f in findings if f["key"] not in wrong)
        console.print(Text(member["member"] or "together", style="bold"))
        if member["unanswered"]:
            console.print(Text(f"  does not answer: {member['unanswered']}", style="red"))
            continue
        for found in sorted(rest, key=lambda each: list(STYLES).index(each["level"])):
            level = Text(f"  {found['level']:8}", style=STYLES[found["level"]])
            console.print(level.append(f"{found['key']}: {found['text']}", style="not bold"))
            if found["mend"]:
                console.print(Text(f"          -> {found['mend']}", style="cyan"))
        if right:
            console.print(Text(f"  right   {', '.join(right)}", style="green"))


def _without_manager(urls: list[str], token_file: Path | None) -> dict[str, Any]:
    import asyncio
    import os

    from pydantic import TypeAdapter

    from holdfast.config.load import secret
    from holdfast.core.check.findings import CheckReport
    from holdfast.core.check.together import check as judge
    from holdfast.manager.agents.agent_client import AgentClient
    from holdfast.manager.people.check import gather
    from holdfast.tls import Credentials

    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise BadInput("--agent", f"{url} must start with http:// or https://")
    path = token_file or os.environ.get(TOKEN_VARIABLE)
    token = secret(Path(path), "--token-file") if path else None
    shown = Credentials(token, own_certificate(of_agents=True))

    async def ask() -> CheckReport:
        agents = {url: AgentClient(url, url.rstrip("/"), shown) for url in urls}
        try:
            found, silent = await gather(agents)
        finally:
            for each in agents.values():
                await each.close()
        adopting = any(facts.writable for facts in found.values())
        return judge("", tuple(found.values()), silent, adopting)

    report: dict[str, Any] = TypeAdapter(CheckReport).dump_python(asyncio.run(ask()), mode="json")
    return report

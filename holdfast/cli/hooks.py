"""``holdfast hooks check``: whether a manager's hooks exist, and answer."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.errors import BadInput, HoldfastError

if TYPE_CHECKING:
    from holdfast.config.schema import ClusterConfig
    from holdfast.core.calls import Ran
    from holdfast.endpoint.contract import PrimaryChange
    from holdfast.manager.listeners.hooks_setup import Outsiders

CALLED = ("failover", "switchover", "shutdown")

app = typer.Typer(
    help="The executables that the manager calls when the primary changes.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """A callback: without it typer would make the only command the group itself."""


@app.command("check")
def check(
    config: Annotated[Path, typer.Option("--config", help="The manager's configuration file.")],
    primary: Annotated[
        str, typer.Option("--primary", help="The member that is primary, if no manager answers.")
    ] = "",
    test_event: Annotated[
        bool,
        typer.Option("--test-event", help="Also send a test to the report hook and all webhooks."),
    ] = False,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Call each hook with --command=status, on this host, as the user who runs this command.

    Run it where the manager runs, and as its user. Exits with 1 if a hook is missing, or fails.
    """
    from holdfast.config.load import manager_config
    from holdfast.manager.listeners.hooks_setup import Outsiders

    chosen, where = _cluster(manager_config(config).clusters, cluster)
    outsiders = Outsiders.by(chosen.hooks, f"{where}.hooks")
    name = primary or _primary(manager, token_file, chosen.name)
    found = _called(outsiders, _change(chosen, name))
    told = _told(outsiders, _change(chosen, name)) if test_event else {}
    notes = _notes(outsiders)
    good = all(ran.code == 0 for ran in found) and not any(told.values())
    if as_json:
        from dataclasses import asdict

        answer = {"good": good, "hooks": [asdict(each) for each in found], "told": told}
        print(json.dumps(answer | {"notes": notes}))
    else:
        _print(found, told, notes)
    if not good:
        raise typer.Exit(1)


def _cluster(clusters: tuple[ClusterConfig, ...], name: str | None) -> tuple[ClusterConfig, str]:
    names = [each.name for each in clusters]
    if name is None and len(clusters) > 1:
        raise BadInput("--cluster", f"is needed: the file has {', '.join(names)}")
    if name is not None and name not in names:
        raise BadInput("--cluster", f"the file has no {name!r}, but {', '.join(names)}")
    number = names.index(name) if name else 0
    return clusters[number], f"clusters.{number}"


def _primary(manager: str | None, token_file: Path | None, cluster: str) -> str:
    """Ask for the primary: MHA's scripts may act on it even when called with --command=status, so it must not be
    guessed."""
    try:
        client, name = connect(manager, token_file, cluster)
        with contextlib.closing(client):
            answer = client.status(name)["primary"]
    except HoldfastError as error:
        raise BadInput("--primary", f"is needed, as no manager says it: {error}") from None
    if not answer:
        raise BadInput("--primary", f"is needed: {cluster} has no primary yet")
    return str(answer)


def _change(cluster: ClusterConfig, primary: str) -> PrimaryChange:
    from holdfast.core.cluster import Member
    from holdfast.core.transition import TransitionKind
    from holdfast.endpoint.contract import PrimaryChange
    from holdfast.manager.listeners.addresses import Addresses

    members = {each.name: each for each in cluster.members}
    if primary not in members:
        raise BadInput("--primary", f"there is no member {primary!r} in the file")
    addresses = Addresses()
    addresses.look_up([members[primary].host])
    found = members[primary]
    place = addresses.place(Member(found.name, found.host, found.port))
    return PrimaryChange(
        cluster.name, TransitionKind.FAILOVER, 0, old=place, new=place, reason="this is a test"
    )


def _called(outsiders: Outsiders, change: PrimaryChange) -> list[Ran]:
    from holdfast.endpoint import contract
    from holdfast.endpoint.hooks import Execution

    event = contract.document("status", change, time.time(), test=True)
    return [
        Execution(outsiders.hooks[name]).run(
            "status", contract.arguments(name, "status", change, outsiders.login), event
        )
        for name in CALLED
        if name in outsiders.hooks
    ]


def _told(outsiders: Outsiders, change: PrimaryChange) -> dict[str, str]:
    """By receiver: why its delivery failed, or \"\"."""
    from holdfast.endpoint import contract
    from holdfast.endpoint.hooks import Execution
    from holdfast.manager.listeners.hooks import verdict

    subject = f"{change.cluster}: this is a test of holdfast hooks check"
    number = f"{change.cluster}-test-{int(time.time())}"
    event = contract.document("report", change, time.time(), test=True, id=number, subject=subject)
    told = {}
    if hook := outsiders.hooks.get("report"):
        arguments = contract.report_arguments(change, subject, "Nothing has happened.\n")
        ran = Execution(hook).run("report", arguments, event)
        told["report"] = "" if ran.code == 0 else verdict(ran)[1]
    outsiders.ended.set()  # one attempt is enough
    for sender in outsiders.senders:
        delivery = sender.deliver(number, event)
        told[f"webhook at {delivery.host}"] = delivery.trouble
    return told


def _notes(outsiders: Outsiders) -> list[str]:
    hooks = outsiders.hooks
    if "failover" in hooks and "switchover" not in hooks:
        return ["there is no switchover hook: a switchover calls none"]
    if "switchover" in hooks and "failover" not in hooks:
        return ["there is no failover hook: a failover calls none"]
    return []


def _print(found: list[Ran], told: dict[str, str], notes: list[str]) -> None:
    from holdfast.manager.listeners.hooks import verdict

    for ran in found:
        _, text = verdict(ran)
        print(f"{ran.hook:<12}{'ok' if ran.code == 0 else 'FAILS: ' + text} ({ran.seconds:.2f} s)")
        for line in ran.output.strip().splitlines():
            print(f"    {line}")
    for who, trouble in told.items():
        print(f"{who}: {'FAILS: ' + trouble if trouble else 'told'}")
    for note in notes or ([] if found or told else ["no hooks are configured"]):
        print(f"note: {note}")
